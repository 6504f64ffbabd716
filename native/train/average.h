// Exponential moving averages of weights (Polyak & Juditsky 1992; TensorFlow's ExponentialMovingAverage): what evaluations
// look at instead of the weights, of all parameters, running statistics included.
#pragma once
#include <cstdint>

#include "core/pool.h"
#include "exec/store.h"

namespace lth {

struct AverageOptions {
  double decay = 0;     // 0: no average is kept
  bool warmup = false;  // min(decay, (1 + t) / (10 + t)) at update t: the average forgets faster in the beginning

  bool any() const { return decay > 0; }
  // At update t, the first one being 1.
  double at(int64_t t) const;
};

// average += (1 - decay) * (weights - average), once the update is made and counted (store.step). A pruned weight is +0 in
// both and stays so.
void average_step(const AverageOptions& options, ParameterStore& store, Pool& pool);

}  // namespace lth
