// Fused masked optimiser steps: one pass over (weight, gradient, state, mask). Pruned entries become +0 in weight
// and state: selected, not multiplied (design: contract 7). Formulas and grouping as in PyTorch;
// RMSProp's as in TensorFlow, whose momentum has the rate in it, epsilon under the root, and means that begin at 1.
#pragma once
#include <string>
#include <vector>

#include "core/pool.h"
#include "exec/store.h"
#include "kernels/kernels.h"

namespace lth {

struct OptimiserOptions {
  enum Type { kSgd, kAdam, kRmsProp };
  Type type = kSgd;
  double momentum = 0, weight_decay = 0;
  bool nesterov = false;
  Decayed decayed = Decayed::kAll;
  double mean_decay = 0.9;  // RMSProp
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;

  // Names of the state arenas: {"momentum"}, {} without momentum, {"exp_avg", "exp_avg_sq"}, {"square_avg", "momentum"}.
  std::vector<std::string> state_names() const;
};

// Applies store.gradients with this learning rate and counts the update.
void optimiser_step(const OptimiserOptions& options, double learning_rate, ParameterStore& store, Pool& pool, Isa isa);

}  // namespace lth
