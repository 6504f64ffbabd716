#include "cuda/cuda.h"

#include "core/error.h"

namespace lth {

CudaInfo cuda_info() {
  CudaInfo info;
  info.reason = "this addon was built against a LibTorch without CUDA";
  return info;
}

at::Device device_from(const std::string& name) {
  if (name == "cpu") return at::Device(at::kCPU);
  if (name.rfind("cuda", 0) == 0) {
    throw Error("no-cuda", "[device] " + name + ": " + cuda_info().reason +
                               ". Set LIBTORCH to the folder of a CUDA build of LibTorch (the torch package of a "
                               "Python that uses the GPU will do) and run npm ci again.");
  }
  throw Error("invalid-argument", "[device] expected cpu, cuda or cuda:N but received " + name);
}

std::string device_words(const at::Device&) { throw Error("no-cuda", "[device] " + cuda_info().reason); }

std::unique_ptr<LaunchGraph> record(const std::function<void()>&, const LaunchGraph*) {
  throw Error("no-cuda", "[record] " + cuda_info().reason);
}

const MemorySource& pinned_memory(const at::Device&) { throw Error("no-cuda", "[memory] " + cuda_info().reason); }

void set_device_mode(DeviceMode) { throw Error("no-cuda", "[session] deviceMode: " + cuda_info().reason); }

}  // namespace lth
