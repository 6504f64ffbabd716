#include "train/optimiser.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "cuda/device_kernels.h"

namespace lth {
namespace {

// base^n by products alone: the C library's pow differs between versions, and the result is part of a run's bits.
double power(double base, int64_t n) {
  double result = 1;
  for (; n > 0; n >>= 1, base *= base) {
    if (n & 1) result *= base;
  }
  return result;
}

template <typename T>
AdamStep<T> adam_step(const OptimiserOptions& o, double rate, int64_t t) {
  const double correction1 = 1 - power(o.beta1, t), correction2 = 1 - power(o.beta2, t);
  return {.step_size = static_cast<T>(rate / correction1),
          .one_beta1 = static_cast<T>(1 - o.beta1),
          .beta2 = static_cast<T>(o.beta2),
          .one_beta2 = static_cast<T>(1 - o.beta2),
          .epsilon = static_cast<T>(o.epsilon),
          .weight_decay = static_cast<T>(o.weight_decay),
          .root = static_cast<T>(std::sqrt(correction2))};
}

// Means of squares begin at 1 (as TensorFlow's): of that first 1, mean_decay^t is left, and the state holds the rest.
template <typename T>
RmsPropStep<T> rmsprop_step(const OptimiserOptions& o, double rate, int64_t t) {
  return {.rate = static_cast<T>(rate),
          .momentum = static_cast<T>(o.momentum),
          .decay = static_cast<T>(o.mean_decay),
          .one_decay = static_cast<T>(1 - o.mean_decay),
          .epsilon = static_cast<T>(o.epsilon + power(o.mean_decay, t)),
          .weight_decay = static_cast<T>(o.weight_decay)};
}

template <typename T>
void step_cpu(const OptimiserOptions& o, double rate, ParameterStore& store, Pool& pool, const Kernels<T>& kernels) {
  T* const weights = store.weights.data_ptr<T>();
  T* const all_left = store.left.data_ptr<T>();
  const T* g = store.gradients.data_ptr<T>();
  T* s0 = store.optimiser.empty() ? nullptr : store.optimiser[0].values.data_ptr<T>();
  T* s1 = store.optimiser.size() < 2 ? nullptr : store.optimiser[1].values.data_ptr<T>();
  const SgdStep<T> sgd = {static_cast<T>(rate), static_cast<T>(o.momentum), static_cast<T>(o.weight_decay), o.nesterov};
  const AdamStep<T> adam = adam_step<T>(o, rate, store.optimiser_updates + 1);
  const RmsPropStep<T> rmsprop = rmsprop_step<T>(o, rate, store.optimiser_updates + 1);
  const Packing& packing = store.packing;
  pool.parallel(static_cast<int64_t>(packing.chunks.size()), [&](int64_t task) {
    const Packing::Chunk& chunk = packing.chunks[static_cast<size_t>(task)];
    const int64_t at = chunk.first;
    const uint64_t* mask = packing.words.data() + at / 64;
    const bool decays = ParameterLayout::decays(store.layout().parameters[static_cast<size_t>(chunk.parameter)], o.decayed);
    const auto with_decay = [decays](auto one) {
      if (!decays) one.weight_decay = 0;
      return one;
    };
    const auto step = [&](T* w) {
      switch (o.type) {
        case OptimiserOptions::kSgd:
          return kernels.sgd(with_decay(sgd), w, g + at, s0 ? s0 + at : nullptr, mask, chunk.count / 64);
        case OptimiserOptions::kAdam: return kernels.adam(with_decay(adam), w, g + at, s0 + at, s1 + at, mask, chunk.count / 64);
        case OptimiserOptions::kRmsProp:
          return kernels.rmsprop(with_decay(rmsprop), w, g + at, s0 + at, s1 ? s1 + at : nullptr, mask, chunk.count / 64);
      }
    };
    T* const w = weights + chunk.weights;
    if (!chunk.places) return step(w);
    T* const left = all_left + chunk.left;
    step(left);
    for (int64_t i = 0; i < chunk.places_count; ++i) w[chunk.places[i]] = left[i];
  });
}

// The same arithmetic on devices: SGD in fp32 by our CUDA kernel, all else through ATen. Where a pruned weight and its state are +0 and
// its gradient is taken for 0, whatever that was, they stay +0.
void step_aten(const OptimiserOptions& o, double rate, ParameterStore& store) {
  c10::NoGradGuard no_grad;
  const DeviceKernels* kernels = DeviceKernels::of(store.device);
  if (kernels && o.type == OptimiserOptions::kSgd && store.dtype == Dtype::kFloat32) {
    const device::Sgd p = {store.weights.data_ptr<float>(),
                           store.gradients.data_ptr<float>(),
                           store.optimiser.empty() ? nullptr : store.optimiser[0].values.data_ptr<float>(),
                           reinterpret_cast<const unsigned char*>(store.keep.data_ptr<bool>()),
                           store.layout().trainable,
                           static_cast<float>(rate),
                           static_cast<float>(o.momentum),
                           static_cast<float>(o.weight_decay),
                           o.nesterov,
                           store.decayed.defined() ? reinterpret_cast<const unsigned char*>(store.decayed.data_ptr<bool>()) : nullptr};
    return kernels->launch(DeviceKernel::kSgd, {device::blocks_for(p.size), 1, 1}, p);
  }
  const auto trainable = [&](const at::Tensor& flat) { return flat.narrow(0, 0, store.layout().trainable); };
  at::Tensor weights = trainable(store.weights);
  at::Tensor g = at::where(trainable(store.keep), trainable(store.gradients), 0);
  if (o.weight_decay != 0) {
    g.add_(store.decayed.defined() ? at::where(trainable(store.decayed), weights, 0) : weights, o.weight_decay);
  }
  if (o.type == OptimiserOptions::kSgd) {
    if (!store.optimiser.empty()) {
      at::Tensor m = trainable(store.optimiser[0].values);
      m.mul_(o.momentum).add_(g);
      g = o.nesterov ? g.add_(m, o.momentum) : m;
    }
    weights.add_(g, -rate);
  } else if (o.type == OptimiserOptions::kRmsProp) {
    const RmsPropStep<double> s = rmsprop_step<double>(o, rate, store.optimiser_updates + 1);
    at::Tensor v = trainable(store.optimiser[0].values);
    v.mul_(o.mean_decay).addcmul_(g, g, 1 - o.mean_decay);
    at::Tensor update = g.mul(rate).div_(at::sqrt(v.add(s.epsilon)));
    if (o.momentum != 0) update = trainable(store.optimiser[1].values).mul_(o.momentum).add_(update);
    weights.sub_(update);
  } else {
    const AdamStep<double> s = adam_step<double>(o, rate, store.optimiser_updates + 1);
    at::Tensor m = trainable(store.optimiser[0].values), v = trainable(store.optimiser[1].values);
    m.lerp_(g, 1 - o.beta1);
    v.mul_(o.beta2).addcmul_(g, g, 1 - o.beta2);
    // Selected, for 0 / (0 + epsilon) is no number where epsilon is 0 in this precision.
    const at::Tensor update = m / at::sqrt(v).div_(s.root).add_(o.epsilon);
    weights.add_(at::where(trainable(store.keep), update, 0), -s.step_size);
  }
}

}  // namespace

std::vector<std::string> OptimiserOptions::state_names() const {
  if (type == kAdam) return {"exp_avg", "exp_avg_sq"};
  if (type == kRmsProp && momentum == 0) return {"square_avg"};
  if (type == kRmsProp) return {"square_avg", "momentum"};
  if (momentum != 0) return {"momentum"};
  return {};
}

void optimiser_step(const OptimiserOptions& options, double learning_rate, ParameterStore& store, Pool& pool,
                    Isa isa) {
  if (store.kind == ParameterStore::kAten) {
    step_aten(options, learning_rate, store);
  } else if (store.dtype == Dtype::kFloat32) {
    step_cpu<float>(options, learning_rate, store, pool, kernels_f32(isa));
  } else {
    step_cpu<double>(options, learning_rate, store, pool, kernels_f64());
  }
  ++store.optimiser_updates;
}

}  // namespace lth
