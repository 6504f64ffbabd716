#include "exec/libtorch.h"

#include <dlfcn.h>
#include <torch/version.h>

#include <filesystem>

#include "exec/aten.h"

namespace lth {

std::string libtorch_version() { return TORCH_VERSION; }

std::string libtorch_path() {
  Dl_info info;
  if (!dladdr(reinterpret_cast<void*>(static_cast<void (*)(int)>(&at::set_num_threads)), &info) || !info.dli_fname) return "";
  return std::filesystem::path(info.dli_fname).parent_path().parent_path().string();
}

}  // namespace lth
