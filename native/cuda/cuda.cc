#include "cuda/cuda.h"

#include <ATen/Context.h>
#include <ATen/cuda/CUDAGraph.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <optional>

#include "core/error.h"

namespace lth {
namespace {

class CudaGraph final : public LaunchGraph {
 public:
  CudaGraph(const std::function<void()>& work, const CudaGraph* shares_with) {
    // What an update before has used would lie idle next to the graph's own memory. That may not be given back while
    // another thread records.
    static std::mutex mutex;
    const std::lock_guard lock(mutex);
    c10::cuda::CUDACachingAllocator::emptyCache();
    const auto pool = shares_with ? shares_with->graph_.pool() : at::cuda::graph_pool_handle();
    // Other threads of this process may train on the same device meanwhile.
    graph_.capture_begin(pool, cudaStreamCaptureModeThreadLocal);
    try {
      work();
    } catch (...) {
      // The first failure is the one to tell; a capture that is broken cannot be ended without another.
      try {
        graph_.capture_end();
      } catch (...) {
        stop_allocating(pool);
      }
      throw;
    }
    graph_.capture_end();
  }

  void replay() override { graph_.replay(); }

 private:
  // Where a broken capture did not: else no memory of the process is given back any more, and nothing recorded to share this one.
  static void stop_allocating(const decltype(at::cuda::graph_pool_handle())& pool) {
    try {
      c10::cuda::CUDACachingAllocator::endAllocateToPool(c10::cuda::current_device(), pool);
    } catch (...) {
    }
  }

  mutable at::cuda::CUDAGraph graph_;  // its `pool` is not const
};

class Pinned final : public MemorySource {
 public:
  explicit Pinned(c10::DeviceIndex index) : index_(index) {}
  uint8_t* allocate(size_t size) const override {
    // Else the thread would make a context on the first device, which takes some of its memory.
    const c10::cuda::CUDAGuard guard(index_);
    void* bytes = nullptr;
    const cudaError_t error = cudaHostAlloc(&bytes, size, cudaHostAllocDefault);
    if (error != cudaSuccess) {
      (void)cudaGetLastError();  // which the next call would be blamed for
      throw Error("io", "[pictures] " + std::to_string(size) + " bytes that the device can read: " + cudaGetErrorString(error));
    }
    return static_cast<uint8_t*>(bytes);
  }
  void release(uint8_t* bytes, size_t) const noexcept override {
    try {
      const c10::cuda::CUDAGuard guard(index_);
      cudaFreeHost(bytes);
    } catch (const std::exception&) {
      // The device fails, and nothing more is read from here.
    }
  }

 private:
  c10::DeviceIndex index_;
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
  return "cuda:" + name + " cudnn=" + std::to_string(cudnn_version(at::detail::getCUDAHooks())) + " device-kernels=3";
}

std::unique_ptr<LaunchGraph> record(const std::function<void()>& work, const LaunchGraph* shares_with) {
  return std::make_unique<CudaGraph>(work, static_cast<const CudaGraph*>(shares_with));
}

const MemorySource& pinned_memory(const at::Device& device) {
  // Never destroyed: pieces come back after the destructors of such variables.
  static auto& mutex = *new std::mutex;
  static auto& made = *new std::map<c10::DeviceIndex, Pinned>;
  const std::lock_guard lock(mutex);
  return made.try_emplace(device.index(), device.index()).first->second;
}

void set_device_mode(DeviceMode mode) {
  static std::mutex mutex;
  static std::optional<DeviceMode> chosen;
  const std::lock_guard lock(mutex);
  if (chosen && *chosen != mode) {
    throw Error("unsupported", std::string("[session] deviceMode: this process is in mode ") +
                                   (mode == DeviceMode::kFast ? "deterministic" : "fast") +
                                   " already, and LibTorch keeps that for all of it: use another process");
  }
  chosen = mode;
  at::Context& context = at::globalContext();
  context.setDeterministicCuDNN(mode == DeviceMode::kDeterministic);
  context.setBenchmarkCuDNN(mode == DeviceMode::kFast);
}

}  // namespace lth
