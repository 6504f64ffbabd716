// Our kernels on CUDA devices: cuda/device/*.cu, compiled for the device at hand. native/no_cuda/ has none.
#pragma once
#include <c10/core/Device.h>

#include "cuda/device/plan.h"

namespace lth {

enum class DeviceKernel {
  kNormalise,
  kNormaliseBackward,
  kLoss,
  kAssemble,
  kTurnWeights,
  kJoinGradients,
  kSgd,
  kConvolve1,  // taps
  kConvolve9,
  // Tiles of units, tiles of channels, taps.
  kWeightGradient111,
  kWeightGradient121,
  kWeightGradient211,
  kWeightGradient221,
  kWeightGradient119,
  kWeightGradient129,
  kWeightGradient219,
  kWeightGradient229,
};

class DeviceKernels {
 public:
  virtual ~DeviceKernels() = default;
  // Of that device, compiled when they are first asked for; null for the CPU, and for GPUs before compute capability 8.0,
  // which do not multiply bf16. Errors are "no-cuda".
  static const DeviceKernels* of(const at::Device& device);

  // On the current stream, which is one of that device.
  template <typename Parameters>
  void launch(DeviceKernel kernel, const device::Grid& grid, const Parameters& parameters) const {
    start(kernel, grid, &parameters, false);
  }
  // A kernel whose blocks wait for each other: at most blocks_at_once().
  template <typename Parameters>
  void launch_together(DeviceKernel kernel, const device::Grid& grid, const Parameters& parameters) const {
    start(kernel, grid, &parameters, true);
  }
  virtual int blocks_at_once() const = 0;

 protected:
  virtual void start(DeviceKernel kernel, const device::Grid& grid, const void* parameters, bool together) const = 0;
};

}  // namespace lth
