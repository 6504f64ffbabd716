#include "exec/libtorch.h"

#include <dlfcn.h>
#include <torch/version.h>

#include <c10/util/Exception.h>

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

std::string libtorch_path() {
  Dl_info info;
  if (!dladdr(reinterpret_cast<void*>(static_cast<void (*)(int)>(&at::set_num_threads)), &info) || !info.dli_fname) return "";
  return std::filesystem::path(info.dli_fname).parent_path().parent_path().string();
}

}  // namespace lth
