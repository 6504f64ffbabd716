#include "cuda/cuda.h"

#include <ATen/Context.h>
#include <ATen/cuda/CUDAGraph.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <cuda_runtime_api.h>

#include <algorithm>

#include "core/error.h"

namespace lth {
namespace {

class CudaGraph final : public LaunchGraph {
 public:
  explicit CudaGraph(const std::function<void()>& work) {
    // Other threads of this process may train on the same device meanwhile.
    graph_.capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
    try {
      work();
    } catch (...) {
      // The first failure is the one to tell; a capture that is broken cannot be ended without another.
      try {
        graph_.capture_end();
      } catch (...) {
      }
      throw;
    }
    graph_.capture_end();
  }

  void replay() override { graph_.replay(); }

 private:
  at::cuda::CUDAGraph graph_;
};

// The one that is loaded, where LibTorch tells it, else the one that it was built with.
template <typename Hooks>
long cudnn_version(const Hooks& hooks) {
  if constexpr (requires { hooks.versionRuntimeCuDNN(); }) {
    return hooks.versionRuntimeCuDNN();
  } else {
    return hooks.versionCuDNN();
  }
}

}  // namespace

CudaInfo cuda_info() {
  CudaInfo info;
  info.built = true;
  if (!at::hasCUDA()) {
    info.reason = "LibTorch has CUDA, but finds no driver or no device on this machine";
    return info;
  }
  const int count = at::detail::getCUDAHooks().deviceCount();
  for (int i = 0; i < count; ++i) {
    info.devices.push_back("cuda:" + std::to_string(i));
    cudaDeviceProp device;
    info.names.push_back(cudaGetDeviceProperties(&device, i) == cudaSuccess ? device.name : "of unknown kind");
  }
  info.available = count > 0;
  if (count == 0) info.reason = "LibTorch has CUDA, but no device is visible (see CUDA_VISIBLE_DEVICES)";
  return info;
}

at::Device device_from(const std::string& name) {
  if (name == "cpu") return at::Device(at::kCPU);
  const bool plain = name == "cuda", indexed = name.rfind("cuda:", 0) == 0;
  const std::string digits = indexed ? name.substr(5) : "0";
  if ((!plain && !indexed) || digits.empty() || digits.size() > 3 ||
      digits.find_first_not_of("0123456789") != std::string::npos) {
    throw Error("invalid-argument", "[device] expected cpu, cuda or cuda:N but received " + name);
  }
  const CudaInfo info = cuda_info();
  if (!info.available) throw Error("no-cuda", "[device] " + name + ": " + info.reason + ". Use --device cpu, or run lth-train doctor.");
  const int index = std::stoi(digits);
  if (index >= static_cast<int>(info.devices.size())) {
    throw Error("no-cuda", "[device] " + name + ": this machine has " + std::to_string(info.devices.size()) + " CUDA device(s)");
  }
  return at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(index));
}

std::string device_words(const at::Device& device) {
  std::string name = cuda_info().names[static_cast<size_t>(device.index())];
  std::replace(name.begin(), name.end(), ' ', '-');
  return "cuda:" + name + " cudnn=" + std::to_string(cudnn_version(at::detail::getCUDAHooks())) + " device-kernels=2";
}

std::unique_ptr<LaunchGraph> record(const std::function<void()>& work) { return std::make_unique<CudaGraph>(work); }

}  // namespace lth
