#include "cuda/device_kernels.h"

#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/error.h"

namespace lth {

extern const char kDeviceKernels[];
extern const char kDeviceParameters[];

namespace {

// In DeviceKernel's order.
constexpr std::array kNames = {
    "moments_2",           "moments_4",           "moments_8",           "normalise",           "gradient_moments_2",
    "gradient_moments_4",  "gradient_moments_8",  "normalise_backward",  "max_pool",            "max_pool_backward",
    "loss",                "assemble",            "drop",                "assemble_folded",     "fold_weights",
    "unfold_gradient",     "turn_weights",        "join_gradients",      "sgd",                 "pool",
    "pool_backward",       "linear",              "linear_gradient",     "linear_backward",     "convolve_11",
    "convolve_19",         "convolve_21",         "convolve_29",         "weight_gradient_111", "weight_gradient_121",
    "weight_gradient_211", "weight_gradient_221", "weight_gradient_119", "weight_gradient_129", "weight_gradient_219",
    "weight_gradient_229"};
static_assert(kNames.size() == static_cast<size_t>(DeviceKernel::kWeightGradient229) + 1);

// What we call of NVRTC and of the driver. LibTorch loads both through a library of its own, which knows where its wheel has
// put them; their headers are not beside every LibTorch.
struct Libraries {
  using Program = void*;
  int (*create)(Program*, const char*, const char*, int, const char* const*, const char* const*);
  int (*compile)(Program, int, const char* const*);
  int (*log_size)(Program, size_t*);
  int (*log)(Program, char*);
  int (*cubin_size)(Program, size_t*);
  int (*cubin)(Program, char*);
  int (*destroy)(Program*);
  int (*architectures)(int*);
  int (*supported)(int*);
  const char* (*words)(int);
  int (*load)(void** module, const void* image);
  int (*function)(void** function, void* module, const char* name);
  int (*launch)(void* function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned shared, cudaStream_t,
                void** parameters, void** extra);

  Libraries() {
    library_ = dlopen("libcaffe2_nvrtc.so", RTLD_NOW | RTLD_LOCAL);
    if (!library_) throw Error("no-cuda", std::string("[cuda] LibTorch's NVRTC does not load: ") + dlerror());
    find(create, "nvrtcCreateProgram");
    find(compile, "nvrtcCompileProgram");
    find(log_size, "nvrtcGetProgramLogSize");
    find(log, "nvrtcGetProgramLog");
    find(cubin_size, "nvrtcGetCUBINSize");
    find(cubin, "nvrtcGetCUBIN");
    find(destroy, "nvrtcDestroyProgram");
    find(architectures, "nvrtcGetNumSupportedArchs");
    find(supported, "nvrtcGetSupportedArchs");
    find(words, "nvrtcGetErrorString");
    find(load, "cuModuleLoadData");
    find(function, "cuModuleGetFunction");
    find(launch, "cuLaunchKernel");
  }

 private:
  template <typename F>
  void find(F& to, const char* name) {
    to = reinterpret_cast<F>(dlsym(library_, name));
    if (!to) throw Error("no-cuda", std::string("[cuda] LibTorch's NVRTC and driver have no ") + name);
  }
  void* library_;
};

const Libraries& libraries() {
  static const Libraries all;
  return all;
}

// The newest that this NVRTC knows and that runs on a device of compute capability major.minor: what is compiled for an older
// minor one does.
std::string architecture_for(int major, int minor) {
  const Libraries& lib = libraries();
  int count = 0;
  std::vector<int> known;
  if (lib.architectures(&count) == 0) known.resize(static_cast<size_t>(count));
  if (!known.empty() && lib.supported(known.data()) != 0) known.clear();
  int best = 0;
  for (int one : known) {
    if (one / 10 == major && one % 10 <= minor) best = std::max(best, one);
  }
  if (best == 0) {
    throw Error("no-cuda", "[cuda] LibTorch's NVRTC knows no device of compute capability " + std::to_string(major) + "." +
                               std::to_string(minor) + ", which this one has: a newer LibTorch does");
  }
  return "sm_" + std::to_string(best);
}

std::vector<char> compiled(const std::string& architecture) {
  const Libraries& lib = libraries();
  const auto check = [&](int result, const char* what) {
    if (result != 0) throw Error("no-cuda", std::string("[cuda] ") + what + ": " + lib.words(result));
  };
  const char* const headers[] = {kDeviceParameters};
  const char* const names[] = {"cuda/device/parameters.h"};
  Libraries::Program program = nullptr;
  check(lib.create(&program, kDeviceKernels, "kernels.cu", 1, headers, names), "nvrtcCreateProgram");
  const std::string target = "--gpu-architecture=" + architecture;
  const char* const options[] = {target.c_str(), "--std=c++17"};
  const int result = lib.compile(program, 2, options);
  if (result != 0) {
    size_t size = 0;
    std::string log;
    if (lib.log_size(program, &size) == 0 && size > 0) {
      log.resize(size);
      lib.log(program, log.data());
    }
    lib.destroy(&program);
    throw Error("no-cuda", "[cuda] NVRTC cannot compile the kernels for " + architecture + ": " + lib.words(result) + "\n" + log);
  }
  size_t size = 0;
  check(lib.cubin_size(program, &size), "nvrtcGetCUBINSize");
  std::vector<char> image(size);
  check(lib.cubin(program, image.data()), "nvrtcGetCUBIN");
  lib.destroy(&program);
  return image;
}

class Compiled final : public DeviceKernels {
 public:
  Compiled(c10::DeviceIndex index, const std::string& architecture) {
    const c10::cuda::CUDAGuard guard(index);
    cudaFree(nullptr);  // makes the device's context, if nobody has
    const std::vector<char> image = compiled(architecture);
    void* module = nullptr;  // as long as the process
    check(libraries().load(&module, image.data()), "cuModuleLoadData");
    for (size_t i = 0; i < kNames.size(); ++i) check(libraries().function(&functions_[i], module, kNames[i]), kNames[i]);
  }

 protected:
  void start(DeviceKernel kernel, const device::Grid& grid, const void* parameters) const override {
    void* arguments[] = {const_cast<void*>(parameters)};
    const auto which = static_cast<size_t>(kernel);
    const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
    const auto [x, y, z] = grid;
    check(libraries().launch(functions_[which], x, y, z, device::kThreads, 1, 1, 0, stream, arguments, nullptr), kNames[which]);
  }

 private:
  static void check(int result, const char* what) {
    if (result != 0) throw Error("no-cuda", std::string("[cuda] ") + what + " failed: the driver's error " + std::to_string(result));
  }
  std::array<void*, kNames.size()> functions_{};
};

}  // namespace

const DeviceKernels* DeviceKernels::of(const at::Device& device) {
  if (device.is_cpu()) return nullptr;
  // Never destroyed: what trains may end after the destructors of such variables.
  static auto& mutex = *new std::mutex;
  static auto& made = *new std::map<c10::DeviceIndex, std::unique_ptr<Compiled>>;
  const std::lock_guard lock(mutex);
  const auto found = made.find(device.index());
  if (found != made.end()) return found->second.get();
  int major = 0, minor = 0;
  if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device.index()) != cudaSuccess ||
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device.index()) != cudaSuccess) {
    throw Error("no-cuda", "[cuda] the device does not tell its compute capability");
  }
  std::unique_ptr<Compiled> kernels;
  if (major >= 8) kernels = std::make_unique<Compiled>(device.index(), architecture_for(major, minor));
  return (made[device.index()] = std::move(kernels)).get();
}

}  // namespace lth
