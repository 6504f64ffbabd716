#include "exec/libtorch.h"

#include <ATen/Version.h>
#include <dlfcn.h>
#include <torch/version.h>

#include <c10/util/Exception.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <cstdlib>
#include <filesystem>
#include <new>

#include "core/error.h"
#include "exec/aten.h"

namespace lth {

Failure failure_of(const std::exception_ptr& exception) {
  try {
    std::rethrow_exception(exception);
  } catch (const Error& error) {
    return {error.code(), error.what()};
  } catch (const c10::OutOfMemoryError& error) {
    const std::string words = error.what_without_backtrace();
    return {"native", "[libtorch] " + words.substr(0, words.find('\n')) + " A smaller batch needs less, or microBatch, the examples that go through at once"};
  } catch (const c10::Error& error) {
    const std::string words = error.what_without_backtrace();
    return {"native", "[libtorch] " + words.substr(0, words.find('\n'))};
  } catch (const std::bad_alloc&) {
    return {"io", "[memory] out of memory"};
  } catch (const std::exception& error) {
    return {"native", error.what()};
  } catch (...) {
    return {"native", "[native] an exception of unknown kind"};
  }
}

std::string libtorch_version() { return TORCH_VERSION; }

std::string libtorch_isa() {
  std::string text = at::get_cpu_capability();
#if defined(__x86_64__)
  unsigned a, b, c, d;
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 5 & 1)) text += "+avx512_bf16";
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 22 & 1)) text += "+amx_bf16";
#endif
  // Several programs set these; oneDNN takes the first that is there.
  for (const char* name : {"ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"}) {
    const char* most = std::getenv(name);
    if (most && *most) return text + "<=" + most;
  }
  return text;
}

std::string libtorch_path() {
  Dl_info info;
  if (!dladdr(reinterpret_cast<void*>(static_cast<void (*)(int)>(&at::set_num_threads)), &info) || !info.dli_fname) return "";
  return std::filesystem::path(info.dli_fname).parent_path().parent_path().string();
}

}  // namespace lth
