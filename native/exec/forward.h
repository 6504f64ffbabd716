// A differentiable forward through LibTorch, layer by layer. It reads the layers, not the compiled operations, so that
// a wrong fusion or buffer cannot be wrong in both executors.
#pragma once
#include <functional>

#include "exec/aten.h"
#include "network/network.h"

namespace lth {

// x (N, input shape) -> logits (N,K). `parameter` gives a parameter's tensor by its index in the layout; it is asked for
// each one once, in the order of the layers.
at::Tensor forward(const CompiledNetwork& network, const at::Tensor& x,
                   const std::function<at::Tensor(int)>& parameter);

}  // namespace lth
