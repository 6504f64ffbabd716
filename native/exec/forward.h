// A network layer by layer through LibTorch, in any dtype and on any device, differentiable as often as is wanted. It
// reads the layers, not the compiled operations, so that a wrong fusion or buffer of an executor cannot be wrong here.
#pragma once
#include <functional>
#include <vector>

#include "exec/aten.h"
#include "network/network.h"

namespace lth {

// Of one batch norm layer and one batch: what its running statistics are moved towards.
struct BatchStatistics {
  int mean, variance;           // parameters: running_mean, running_var
  double momentum;
  at::Tensor batch_mean, batch_variance;  // (C); the variance is unbiased, as PyTorch's running one
};

struct ForwardOptions {
  bool training = false;  // batch norm takes the batch's statistics, else the running ones
  std::vector<BatchStatistics>* statistics = nullptr;  // filled in training, if wanted
  // (N, elements) of 0 and 1: what a dropout layer keeps; null: everything.
  std::function<at::Tensor(int layer, int64_t elements, double probability)> kept = nullptr;
  std::vector<at::Tensor>* auxiliary = nullptr;  // the auxiliary heads' logits, if wanted
};

// x (N, input shape) -> logits (N, classes). `parameters` by their index in the layout, each in its own shape.
at::Tensor forward(const CompiledNetwork& network, const at::Tensor& x, const std::vector<at::Tensor>& parameters,
                   const ForwardOptions& options);

}  // namespace lth
