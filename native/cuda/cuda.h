// The CUDA side of the addon. native/cuda/ implements it where LibTorch has CUDA, native/no_cuda/ where it has not.
#pragma once
#include <c10/core/Device.h>

#include <string>
#include <vector>

namespace lth {

struct CudaInfo {
  bool built = false;
  bool available = false;
  std::vector<std::string> devices;
  std::string reason;  // why not; empty where available
};

CudaInfo cuda_info();

// "cpu", "cuda" or "cuda:N". A CUDA device that cannot be used is an error "no-cuda" that tells what to do.
at::Device device_from(const std::string& name);

}  // namespace lth
