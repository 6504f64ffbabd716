#include "exec/layer_bench.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "core/error.h"
#include "core/random.h"
#include "exec/images/convolution.h"
#include "exec/linear_layer.h"
#include "kernels/limits.h"

namespace lth {
namespace {

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void use_one_thread() { at::set_num_threads(1); }

float value_of(float x) { return x; }
float value_of(Bf16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Normal numbers, again and again: no product is of zeros, and no table is as long as a row.
class Numbers {
 public:
  explicit Numbers(uint64_t of) {
    const Stream numbers = stream(of, 0, Purpose::kInitialisation, 0);
    for (size_t i = 0; i < kMany; ++i) values_.push_back(static_cast<float>(normal(numbers, i, 0, 0)));
  }
  float next() { return values_[at_ = (at_ + 1) % kMany]; }

 private:
  static constexpr size_t kMany = 4099;
  std::vector<float> values_;
  size_t at_ = 0;
};

// One of the three products, both ways.
struct Both {
  std::function<void()> dense, sparse;  // sparse: null where there is none
  std::function<std::vector<float>()> result;
};

double difference(const Both& both) {
  both.dense();
  const std::vector<float> expected = both.result();
  both.sparse();
  const std::vector<float> got = both.result();
  double largest = 0, apart = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double distance = std::fabs(static_cast<double>(expected[i]) - got[i]);
    // NaN is larger than anything.
    if (!(distance <= apart)) apart = distance;
    largest = std::max(largest, std::fabs(static_cast<double>(expected[i])));
  }
  return apart == 0 ? 0 : largest > 0 ? apart / largest : std::numeric_limits<double>::infinity();
}

// Both sides in turn; false where it was stopped.
bool time_both(const Both& both, const LayerBenchOptions& o, const Stopping& stopping, ProductTimes& times) {
  const auto sample = [](const std::function<void()>& f, int64_t repeats) {
    const double start = seconds_now();
    for (int64_t i = 0; i < repeats; ++i) f();
    return (seconds_now() - start) / static_cast<double>(repeats);
  };
  const auto repeats = [&](const std::function<void()>& f) {
    f();
    const double once = std::max(sample(f, 1), 1e-9);
    return std::clamp<int64_t>(static_cast<int64_t>(std::ceil(o.sample / once)), 1, 1 << 20);
  };
  const int64_t of_dense = repeats(both.dense);
  const int64_t of_sparse = both.sparse ? repeats(both.sparse) : 0;
  for (int64_t round = 0; round < o.rounds; ++round) {
    if (stopping()) return false;
    times.dense.push_back(sample(both.dense, of_dense));
    if (!both.sparse) continue;
    if (stopping()) return false;
    times.sparse.push_back(sample(both.sparse, of_sparse));
  }
  return true;
}

// bf16 rounds both sides' sums, which are summed in another order, to 8 bits.
bool measure(const char* name, const Both& both, const LayerBenchOptions& o, const Stopping& stopping, ProductTimes& times) {
  if (stopping()) return false;
  if (both.sparse) {
    times.difference = difference(both);
    const double tolerance = o.bf16 ? 1e-2 : 1e-4;
    if (!(times.difference <= tolerance)) {
      throw Error("native", std::string("[bench] ") + name + ": dense and sparse products differ by " +
                                std::to_string(times.difference) + " of the largest value, more than " + std::to_string(tolerance));
    }
  }
  return time_both(both, o, stopping, times);
}

// Output places whose tap lies inside, by tap, along one axis.
std::vector<int64_t> seen(int64_t size, int64_t out_size, int64_t kernel, int64_t stride, int64_t padding) {
  std::vector<int64_t> places(static_cast<size_t>(kernel));
  for (int64_t tap = 0; tap < kernel; ++tap) {
    for (int64_t o = 0; o < out_size; ++o) {
      const int64_t at = o * stride - padding + tap;
      if (at >= 0 && at < size) ++places[static_cast<size_t>(tap)];
    }
  }
  return places;
}

void set_bytes(ProductTimes& times, const LayerTimes& layer, double values) {
  times.dense_bytes = values + static_cast<double>(layer.weights) * sizeof(float);
  times.sparse_bytes = values + static_cast<double>(layer.remaining) * sizeof(float);
}

// The gradients that an update wants, of the weights that are left.
std::vector<float> gradients_left(ParameterStore& store, int parameter) {
  const ParameterSpec& spec = store.layout().parameters[static_cast<size_t>(parameter)];
  const float* from = store.gradients_of<float>(parameter);
  if (const Packing::Part* packed = store.packed_gradients(parameter)) return {from, from + packed->size};
  std::vector<float> left;
  for_each_bit(store.masks->words, spec.offset, spec.size, [&](int64_t i) { left.push_back(from[i - spec.offset]); });
  return left;
}

template <typename S>
std::vector<float> floats(const S* from, int64_t n) {
  std::vector<float> all(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) all[static_cast<size_t>(i)] = value_of(from[i]);
  return all;
}

template <typename S>
bool time_convolution(ParameterStore& store, Pool& pool, const Operation& op, const LayerBenchOptions& o,
                      const Stopping& stopping, LayerTimes& out) {
  const Isa isa = chosen_isa();
  const S* tag = nullptr;
  const LayerKernels<S>& images = layer_kernels(isa, tag);
  Values<S> v(store, pool, images, kernels_f32(isa), o.batch, o.batch);
  v.begin(o.batch);
  TurnedImages<S> turned(v);
  Convolution<S> dense(v, turned, sparse_kernels(isa, tag), ProductCosts{}, op),
      sparse(v, turned, sparse_kernels(isa, tag), ProductCosts{}, op);
  for (Convolution<S>* one : {&dense, &sparse}) {
    one->plan_backward();
    turned.end_stage();
  }
  turned.make();
  dense.set_mask(store.masks->words, Products::kDense, true);
  sparse.set_mask(store.masks->words, Products::kSparse, true);

  const auto &in = v.values[static_cast<size_t>(op.inputs[0])], &to = v.values[static_cast<size_t>(op.output)];
  Numbers numbers(1);
  // Channels that there are not and, in gradients, lanes that no example fills are 0.
  const auto fill = [&](const typename Values<S>::Value& value, bool all_lanes, auto&& at) {
    std::vector<float> cell(static_cast<size_t>(kCell<S>));
    for (int64_t slice = 0; slice < v.slices; ++slice) {
      S* image = at(slice);
      for (int64_t plane = 0; plane < value.planes; ++plane) {
        for (int64_t place = 0; place < value.places; ++place, image += kCell<S>) {
          for (int64_t i = 0; i < kCell<S>; ++i) {
            const bool there = plane * kPack<S> + i % kPack<S> < value.channels && (all_lanes || i / kPack<S> < v.examples(slice));
            cell[static_cast<size_t>(i)] = there ? numbers.next() : 0;
          }
          images.narrow(cell.data(), image, kCell<S>);
        }
      }
    }
  };
  std::vector<S> dy(static_cast<size_t>(v.slices * to.elements)), dx(static_cast<size_t>(v.slices * in.elements));
  const auto dy_of = [&](int64_t slice) { return dy.data() + slice * to.elements; };
  const auto dx_of = [&](int64_t slice) { return dx.data() + slice * in.elements; };
  fill(in, true, [&](int64_t slice) { return v.image(op.inputs[0], slice); });
  fill(to, false, dy_of);

  const auto forward = [&](Convolution<S>& one) {
    return [&] {
      pool.parallel(one.narrow_tasks(), [&](int64_t task) { one.narrow(task); });
      pool.parallel(one.pack_tasks(), [&](int64_t task) { one.pack(task); });
      v.over_slices([&](int64_t slice) { one.forward(slice); });
    };
  };
  const auto input_gradient = [&](Convolution<S>& one) {
    return [&] {
      pool.parallel(one.pack_back_tasks(), [&](int64_t task) { one.pack_back(task); });
      v.over_slices([&](int64_t slice) { one.input_gradient(dy_of(slice), dx_of(slice)); });
    };
  };
  const auto weight_gradient = [&](Convolution<S>& one) {
    return [&] {
      v.over_slices([&](int64_t slice) { one.weight_gradient(slice, dy_of(slice)); });
      one.join();
    };
  };
  const KernelChoice can = sparse.kernels();
  const auto both = [&](auto&& make, bool has_sparse, std::function<std::vector<float>()> result) {
    return Both{make(dense), has_sparse ? std::function<void()>(make(sparse)) : nullptr, std::move(result)};
  };

  const Window w = v.window(op);
  const std::vector<int64_t> rows = seen(w.height, w.out_height, w.kernel_h, w.stride_h, w.padding_h);
  const std::vector<int64_t> columns = seen(w.width, w.out_width, w.kernel_w, w.stride_w, w.padding_w);
  const ParameterSpec& spec = store.layout().parameters[static_cast<size_t>(op.weight)];
  const double each = 2 * static_cast<double>(o.batch);
  const int64_t taps = w.kernel_h * w.kernel_w;
  const auto operations = [&](int64_t i) {
    const int64_t tap = i % taps;
    return each * static_cast<double>(rows[static_cast<size_t>(tap / w.kernel_w)] * columns[static_cast<size_t>(tap % w.kernel_w)]);
  };
  for (int64_t tap = 0; tap < taps; ++tap) out.dense_operations += operations(tap) * static_cast<double>(spec.size / taps);
  for_each_bit(store.masks->words, spec.offset, spec.size, [&](int64_t i) { out.sparse_operations += operations(i - spec.offset); });
  const double of_x = static_cast<double>(o.batch * in.features) * sizeof(S);
  const double of_y = static_cast<double>(o.batch * to.features) * sizeof(S);

  set_bytes(out.forward, out, of_x + of_y);
  if (!measure("forward", both(forward, can.sparse_forward,
                               [&] { return floats(v.image(op.output, 0), v.slices * to.elements); }),
               o, stopping, out.forward)) {
    return false;
  }
  if (can.has_input_gradient) {
    set_bytes(out.input_gradient.emplace(), out, of_x + of_y);
    if (!measure("input gradient", both(input_gradient, can.sparse_input_gradient,
                                        [&] { return floats(dx.data(), static_cast<int64_t>(dx.size())); }),
                 o, stopping, *out.input_gradient)) {
      return false;
    }
  }
  set_bytes(out.weight_gradient, out, of_x + of_y);
  return measure("weight gradient", both(weight_gradient, can.sparse_weight_gradient, [&] { return gradients_left(store, op.weight); }),
                 o, stopping, out.weight_gradient);
}

bool time_linear(ParameterStore& store, Pool& pool, const Operation& op, bool wants_dx, const LayerBenchOptions& o,
                 const Stopping& stopping, LayerTimes& out) {
  const Isa isa = chosen_isa();
  const Kernels<float>& kernels = kernels_f32(isa);
  const ParameterSpec& spec = store.layout().parameters[static_cast<size_t>(op.weight)];
  const int64_t k = spec.shape[0], c = spec.shape[1], n = o.batch, lanes = padded(n), row = padded(c);
  SparseLinear<float> sparse(store, sparse_kernels(isa, static_cast<const float*>(nullptr)), LinearCosts{}, op, wants_dx);
  sparse.set_mask(Products::kSparse, true);
  sparse.use(lanes);
  std::vector<float> x(static_cast<size_t>(c * lanes)), rows(static_cast<size_t>(lanes * row)), y(static_cast<size_t>(k * lanes)),
      dy(y.size()), dx(x.size());
  Numbers numbers(1);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<int64_t>(i) % lanes < n ? numbers.next() : 0;
  for (size_t i = 0; i < dy.size(); ++i) dy[i] = static_cast<int64_t>(i) % lanes < n ? numbers.next() : 0;
  kernels.transpose(x.data(), lanes, rows.data(), row, c, lanes);

  const float* w = store.weights.data_ptr<float>() + spec.offset;
  const Product<float> forward = linear_forward<float>(w, nullptr, c, x.data(), y.data(), lanes, false);
  const Product<float> input = linear_input_gradient<float>(w, c, k, dy.data(), dx.data(), lanes, false);
  const Product<float> weight =
      linear_weight_gradient<float>(dy.data(), lanes, n, rows.data(), row, c, store.gradients_of<float>(op.weight));
  const KernelChoice can = sparse.kernels();
  const auto result_of = [](const std::vector<float>& values) { return [&values] { return values; }; };

  const double each = 2 * static_cast<double>(n);
  out.dense_operations = each * static_cast<double>(spec.size);
  out.sparse_operations = each * static_cast<double>(out.remaining);
  const double values = static_cast<double>(n * (c + k)) * sizeof(float);

  Both one;
  one.dense = [&] { over_rows(pool, k, [&](int64_t k0, int64_t k1) { kernels.product(forward, k0, k1, 0, lanes); }); };
  if (can.sparse_forward) {
    one.sparse = [&] { over_rows(pool, k, [&](int64_t k0, int64_t k1) { sparse.forward(x.data(), nullptr, y.data(), k0, k1); }); };
  }
  one.result = result_of(y);
  set_bytes(out.forward, out, values);
  if (!measure("forward", one, o, stopping, out.forward)) return false;

  if (wants_dx) {
    one = {};
    one.dense = [&] { over_rows(pool, c, [&](int64_t c0, int64_t c1) { kernels.product(input, c0, c1, 0, lanes); }); };
    if (can.sparse_input_gradient) {
      one.sparse = [&] { over_rows(pool, c, [&](int64_t c0, int64_t c1) { sparse.input_gradient(dy.data(), dx.data(), c0, c1); }); };
    }
    one.result = result_of(dx);
    set_bytes(out.input_gradient.emplace(), out, values);
    if (!measure("input gradient", one, o, stopping, *out.input_gradient)) return false;
  }

  one = {};
  one.dense = [&] {
    over_rows(pool, k, [&](int64_t k0, int64_t k1) { weight_gradient_rows(kernels, weight, k0, k1, store, op.weight); });
  };
  if (can.sparse_weight_gradient) {
    one.sparse = [&] { over_rows(pool, k, [&](int64_t k0, int64_t k1) { sparse.weight_gradient(dy.data(), x.data(), k0, k1); }); };
  }
  one.result = [&] { return gradients_left(store, op.weight); };
  set_bytes(out.weight_gradient, out, values);
  return measure("weight gradient", one, o, stopping, out.weight_gradient);
}

}  // namespace

std::optional<LayerTimes> time_layer(std::shared_ptr<const CompiledNetwork> network, std::shared_ptr<const Masks> masks,
                                     const LayerBenchOptions& o, const Stopping& stopping) {
  use_one_thread();
  const Operation* layer = nullptr;
  for (const Operation& op : network->operations) {
    if (op.type != Operation::kConvolution && op.type != Operation::kLinear) continue;
    if (layer) throw Error("invalid-argument", "[bench] the network has more layers with weights than " + layer->name);
    layer = &op;
  }
  if (!layer) throw Error("invalid-argument", "[bench] the network has no layer with weights");
  const bool linear = layer->type == Operation::kLinear;
  if (linear && o.bf16) throw Error("unsupported", "[bench] " + layer->name + ": linear layers are multiplied in fp32, not bf16");
  if (!masks->layout->same_places(*network->layout)) throw Error("wrong-shape", "[bench] masks belong to another network");
  Pool pool(o.threads, use_one_thread);
  ParameterStore store(network, Dtype::kFloat32, at::kCPU, ParameterStore::kPacked, {});
  store.initialise(0, 0, 0);
  store.set_masks(std::move(masks));
  store.want_gradients(false);
  LayerTimes out;
  out.weights = store.layout().parameters[static_cast<size_t>(layer->weight)].size;
  out.remaining = store.masks->remaining[static_cast<size_t>(layer->weight)];
  const bool done = linear ? time_linear(store, pool, *layer, layer->inputs[0] != network->input, o, stopping, out)
                    : o.bf16 ? time_convolution<Bf16>(store, pool, *layer, o, stopping, out)
                             : time_convolution<float>(store, pool, *layer, o, stopping, out);
  if (!done) return std::nullopt;
  return out;
}

std::optional<MachineLimits> measure_limits(int threads, const Stopping& stopping) {
  constexpr int kTries = 5;
  constexpr double kLeast = 0.03;  // seconds of a try
  const Isa isa = chosen_isa();
  const LimitLoops& loops = limit_loops(isa);
  Pool pool(threads, use_one_thread);
  bool stopped = false;
  // The best of some tries: a limit is not what others leave of it.
  const auto best = [&](auto&& make) {
    double most = 0;
    for (int i = 0; i < kTries && !stopped; ++i) {
      stopped = stopping();
      const double start = seconds_now();
      double made = 0;
      do {
        made += make();
      } while (seconds_now() - start < kLeast);
      most = std::max(most, made / (seconds_now() - start));
    }
    return most;
  };
  const auto of_loop = [&](int64_t (*loop)(int64_t, const float*, float*)) {
    return best([&] {
      std::vector<float> sink(static_cast<size_t>(threads) * kLane);
      std::vector<int64_t> made(static_cast<size_t>(threads));
      constexpr float kIn[3] = {0.999f, 1e-3f, 0.5f};
      pool.parallel(threads, [&](int64_t t) { made[static_cast<size_t>(t)] = loop(200'000, kIn, sink.data() + t * kLane); });
      double all = 0;
      for (int64_t one : made) all += static_cast<double>(one);
      return all;
    });
  };
  MachineLimits limits;
  limits.fp32 = of_loop(loops.fp32);
  if (loops.bf16) limits.bf16 = of_loop(loops.bf16);
  constexpr int64_t kFloats = 32 << 20, kTask = 1 << 16;
  const Arena a(kFloats * sizeof(float)), b(kFloats * sizeof(float)), sum(kFloats * sizeof(float));
  const Kernels<float>& kernels = kernels_f32(isa);
  const auto of = [](const Arena& arena, int64_t task) { return reinterpret_cast<float*>(arena.data()) + task * kTask; };
  const auto tasks = tasks_for(kFloats, kTask);
  // Pages that were never written are all the same one.
  for (const Arena* one : {&a, &b, &sum}) {
    pool.parallel(tasks, [&](int64_t task) { std::fill_n(of(*one, task), kTask, 1.0f); });
  }
  limits.bandwidth = best([&] {
    pool.parallel(tasks, [&](int64_t task) { kernels.add(of(a, task), of(b, task), of(sum, task), kTask); });
    return 3.0 * kFloats * sizeof(float);
  });
  if (stopped) return std::nullopt;
  return limits;
}

}  // namespace lth
