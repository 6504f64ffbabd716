#include "train/average.h"

#include <algorithm>

namespace lth {
namespace {

template <typename T>
void step_cpu(T rate, ParameterStore& store, Pool& pool) {
  constexpr int64_t kTask = 1 << 15;
  const T* const weights = store.weights.const_data_ptr<T>();
  T* const average = store.average.data_ptr<T>();
  const int64_t count = store.layout().arena;
  pool.parallel((count + kTask - 1) / kTask, [&](int64_t task) {
    const int64_t end = std::min((task + 1) * kTask, count);
    for (int64_t i = task * kTask; i < end; ++i) average[i] += (weights[i] - average[i]) * rate;
  });
}

}  // namespace

double AverageOptions::at(int64_t t) const {
  if (!warmup) return decay;
  return std::min(decay, static_cast<double>(1 + t) / static_cast<double>(10 + t));
}

void average_step(const AverageOptions& options, ParameterStore& store, Pool& pool) {
  const double rate = 1 - options.at(store.step);
  if (store.kind == ParameterStore::kAten) {
    c10::NoGradGuard no_grad;
    store.average.lerp_(store.weights, rate);
  } else if (store.dtype == Dtype::kFloat32) {
    step_cpu<float>(static_cast<float>(rate), store, pool);
  } else {
    step_cpu<double>(rate, store, pool);
  }
}

}  // namespace lth
