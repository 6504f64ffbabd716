// Our kernels on CUDA devices: cuda/device/*.cu, compiled for the device at hand. native/no_cuda/ has none.
#pragma once
#include <c10/core/Device.h>

#include "cuda/device/plan.h"

namespace lth {

enum class DeviceKernel {
  // Vectors that a block sums.
  kMoments2,
  kMoments4,
  kMoments8,
  kNormalise,
  kGradientMoments2,
  kGradientMoments4,
  kGradientMoments8,
  kNormaliseBackward,
  kMaxPool,
  kMaxPoolBackward,
  kLoss,
  kAssemble,
  kDrop,
  kAssembleFolded,
  kFoldWeights,
  kUnfoldGradient,
  kTurnWeights,
  kJoinGradients,
  kSgd,
  kPool,
  kPoolBackward,
  kLinear,
  kLinearGradient,
  kLinearBackward,
  // Tiles of channels, taps.
  kConvolve11,
  kConvolve19,
  kConvolve21,
  kConvolve29,
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
    start(kernel, grid, &parameters);
  }

 protected:
  virtual void start(DeviceKernel kernel, const device::Grid& grid, const void* parameters) const = 0;
};

}  // namespace lth
