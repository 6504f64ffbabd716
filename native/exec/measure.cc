#include "exec/measure.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <ctime>
#include <memory>
#include <span>
#include <vector>

#include "core/random.h"
#include "exec/images/convolution.h"
#include "exec/linear_layer.h"

namespace lth {
namespace {

// Shares of the weights that are left: about where sparse products begin to pay, and well below. The two tell what costs the
// same for any number of weights from the rest.
constexpr std::array<double, 2> kDensities = {0.08, 0.25};
constexpr double kShortest = 1e-4;  // seconds of work that are timed at once
// A layer has so many rounds at least, and no more when they have taken so many seconds: portable kernels are slow.
constexpr int kFewestRounds = 3;
constexpr double kEnough = 0.5;

struct Stopped {};

struct Clock {
  const std::function<bool()>& stopping;
  // All work is done by the calling thread: then its own time counts, and not what others take from it. On a busy machine a
  // long product is interrupted more often than a short one, which would make sparse ones look cheap.
  bool alone;

  double now() const {
    timespec t{};
    clock_gettime(alone ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
  }

  // Of one call.
  template <typename F>
  double seconds(F&& f) const {
    for (int64_t calls = 1;;) {
      if (stopping()) throw Stopped();
      const double start = now();
      for (int64_t i = 0; i < calls; ++i) f();
      const double taken = now() - start;
      if (taken >= kShortest) return taken / static_cast<double>(calls);
      calls *= 2;
    }
  }
};

// A round measures every product of a layer once, dense and sparse behind one another: what else the machine does meanwhile
// slows both down.
template <typename F>
void repeat(const Clock& clock, int rounds, F&& round) {
  const double start = clock.now();
  for (int i = 0; i < rounds && (i < kFewestRounds || clock.now() - start < kEnough); ++i) round();
}

// Of the rounds this counts, not the median: others only ever make them slower.
double lower_quartile(std::vector<double> values) {
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 4);
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

// Costs of forward and backward products, and of the gradients of weights.
struct Samples {
  std::vector<ProductSample> products, gradients;

  ProductCosts costs() const {
    const FittedCosts product = fit(products), gradient = fit(gradients);
    return {on_grid(product.of_run), on_grid(product.of_place), on_grid(gradient.of_place), on_grid(gradient.of_run),
            on_grid(gradient.of_split)};
  }
};

// Seconds of all rounds.
struct Times {
  std::vector<double> forward, backward, gradient;
};

double ratio(const std::vector<double>& sparse, const std::vector<double>& dense) {
  return lower_quartile(sparse) / lower_quartile(dense);
}

// In [0, 1).
double uniform(uint64_t index) {
  static const Stream numbers = stream(0, 0, Purpose::kInitialisation, 0);
  return numbers.words(index, 0, 0)[0] * 0x1p-32;
}

// Masks that leave a share of one weight's elements, at random.
std::shared_ptr<const Masks> masks_of(const CompiledNetwork& net, int weight, double density) {
  auto masks = std::make_shared<Masks>();
  masks->layout = net.layout;
  masks->words.assign(static_cast<size_t>(net.layout->arena / 64), 0);
  for (size_t p = 0; p < net.layout->parameters.size(); ++p) {
    const ParameterSpec& spec = net.layout->parameters[p];
    fill_bits(masks->words, spec.offset, spec.size);
    if (static_cast<int>(p) == weight) {
      for (int64_t i = 0; i < spec.size; ++i) {
        if (uniform(static_cast<uint64_t>(i)) >= density) clear_bit(masks->words, spec.offset + i);
      }
    }
    masks->remaining.push_back(count_bits(masks->words, spec.offset, spec.size));
  }
  return masks;
}

LayerSpec convolution(std::string name, std::string in, int64_t units, int64_t kernel, int64_t stride) {
  LayerSpec l;
  l.name = std::move(name);
  l.type = LayerSpec::kConvolution;
  l.inputs = {std::move(in)};
  l.units = units;
  l.kernel = {kernel, kernel};
  l.stride = {stride, stride};
  l.padding = {kernel / 2, kernel / 2};
  l.bias = false;
  return l;
}

LayerSpec layer(LayerSpec::Type type, std::string name, std::string in, int64_t units = 0) {
  LayerSpec l;
  l.name = std::move(name);
  l.type = type;
  l.inputs = {std::move(in)};
  l.units = units;
  return l;
}

const Operation& operation(const CompiledNetwork& net, const std::string& name) {
  return *std::find_if(net.operations.begin(), net.operations.end(), [&](const Operation& op) { return op.name == name; });
}

std::vector<std::string> no_states() { return {}; }

// ---- Convolutions

struct ConvolutionShape {
  int64_t channels, units, size, stride;
  int64_t slices;  // for each thread: where a slice is little work beside what is done once for all of them
};

// Of ResNets and VGGs for pictures of 32 x 32: maps of all sizes, weights that fit into each cache.
constexpr ConvolutionShape kConvolutions[] = {{16, 16, 32, 1, 1},   {32, 64, 16, 2, 1},  {64, 64, 8, 1, 1},
                                              {128, 128, 16, 1, 1}, {256, 256, 8, 1, 1}, {512, 512, 4, 1, 2},
                                              {512, 512, 2, 1, 8}};

template <typename S>
class MeasuredConvolution {
 public:
  MeasuredConvolution(const ConvolutionShape& shape, Isa isa, Pool& pool)
      : pool_(pool),
        // The measured layer does not read the examples, so that there is a gradient of its input.
        net_(compile({"measured", {1, shape.size, shape.size}, 2,
                      {convolution("before", "input", shape.channels, 1, 1),
                       convolution("layer", "before", shape.units, 3, shape.stride),
                       layer(LayerSpec::kGlobalPool, "pool", "layer"), layer(LayerSpec::kLinear, "head", "pool", 2)}})),
        op_(operation(*net_, "layer")),
        store_(net_, Dtype::kFloat32, at::Device(at::kCPU), ParameterStore::kPacked, no_states()),
        values_(store_, pool, layer_kernels(isa, static_cast<const S*>(nullptr)), kernels_f32(isa),
                shape.slices * pool.threads() * kLane, shape.slices * pool.threads() * kLane),
        turned_(values_) {
    for (size_t i = 0; i <= kDensities.size(); ++i) {
      const SparseKernels<S>& sparse = sparse_kernels(isa, static_cast<const S*>(nullptr));
      layers_.push_back(std::make_unique<Convolution<S>>(values_, turned_, sparse, ProductCosts{}, op_));
      layers_.back()->plan_backward();
      turned_.end_stage();
    }
    turned_.make();
    store_.initialise(0, 0, 0);
    values_.begin(values_.capacity);
    dy_ = Arena(bytes(op_.output));
    dx_ = Arena(bytes(op_.inputs[0]));
    for (int64_t slice = 0; slice < values_.slices; ++slice) {
      fill(values_.image(op_.inputs[0], slice), values_.values[op_.inputs[0]].elements);
      fill(dy(slice), values_.values[op_.output].elements);
    }
  }

  void measure(const Clock& clock, int rounds, Samples& samples) {
    // The last mask's gradients take the most room in the store, and that one stays there.
    std::vector<std::shared_ptr<const Masks>> masks;
    for (size_t i = 0; i < kDensities.size(); ++i) {
      masks.push_back(masks_of(*net_, op_.weight, kDensities[i]));
      use(*layers_[i], masks[i], Products::kSparse);
    }
    use(*layers_.back(), masks.back(), Products::kDense);
    std::vector<Times> times(layers_.size());
    repeat(clock, rounds, [&] {
      for (size_t i = 0; i < layers_.size(); ++i) time(*layers_[i], clock, times[i]);
    });
    const Times& dense = times.back();
    for (size_t i = 0; i < kDensities.size(); ++i) {
      const SparseConvolution<S>& sparse = layers_[i]->sparse();
      samples.products.push_back({sparse.forward_work(masks[i]->words), ratio(times[i].forward, dense.forward)});
      samples.products.push_back({sparse.backward_work(masks[i]->words), ratio(times[i].backward, dense.backward)});
      if (!sparse.gradient()) continue;  // as it never is of very many weights
      const ProductWork work = sparse.gradient_work(masks[i]->remaining[op_.weight]);
      samples.gradients.push_back({work, ratio(times[i].gradient, dense.gradient)});
    }
  }

 private:
  size_t bytes(int value) const { return static_cast<size_t>(values_.values[value].elements * values_.slices) * sizeof(S); }
  S* dy(int64_t slice) { return as<S>(dy_) + slice * values_.values[op_.output].elements; }
  S* dx(int64_t slice) { return as<S>(dx_) + slice * values_.values[op_.inputs[0]].elements; }

  // The same numbers again and again, in whole cells.
  void fill(S* to, int64_t elements) const {
    std::array<float, 1024> some;
    for (size_t i = 0; i < some.size(); ++i) some[i] = static_cast<float>(uniform(i)) - 0.5F;
    for (int64_t i = 0; i < elements; i += static_cast<int64_t>(some.size())) {
      const int64_t count = std::min(elements - i, static_cast<int64_t>(some.size()));
      if constexpr (std::is_same_v<S, float>) {
        std::copy_n(some.data(), count, to + i);
      } else {
        values_.images.narrow(some.data(), to + i, count);
      }
    }
  }

  void use(Convolution<S>& layer, const std::shared_ptr<const Masks>& masks, Products products) {
    store_.set_masks(masks);
    store_.want_gradients(false);
    layer.set_mask(masks->words, products, true);
    for (int64_t task = 0; task < layer.narrow_tasks(); ++task) layer.narrow(task);
    for (int64_t task = 0; task < layer.pack_tasks(); ++task) layer.pack(task);
    for (int64_t task = 0; task < layer.pack_back_tasks(); ++task) layer.pack_back(task);
  }

  void time(Convolution<S>& layer, const Clock& clock, Times& times) {
    times.forward.push_back(clock.seconds([&] { pool_.parallel(values_.slices, [&](int64_t slice) { layer.forward(slice); }); }));
    times.backward.push_back(
        clock.seconds([&] { pool_.parallel(values_.slices, [&](int64_t slice) { layer.input_gradient(dy(slice), dx(slice)); }); }));
    times.gradient.push_back(clock.seconds([&] {
      pool_.parallel(values_.slices, [&](int64_t slice) { layer.weight_gradient(slice, dy(slice)); });
      layer.join();
    }));
  }

  Pool& pool_;
  const std::shared_ptr<const CompiledNetwork> net_;
  const Operation& op_;
  ParameterStore store_;
  Values<S> values_;
  TurnedImages<S> turned_;
  std::vector<std::unique_ptr<Convolution<S>>> layers_;  // sparse of each density, and dense
  Arena dy_, dx_;
};

template <typename S>
ProductCosts of_convolutions(Isa isa, Pool& pool, int rounds, const Clock& clock) {
  Samples samples;
  for (const ConvolutionShape& shape : kConvolutions) MeasuredConvolution<S>(shape, isa, pool).measure(clock, rounds, samples);
  return samples.costs();
}

// ---- Linear layers

struct LinearShape {
  int64_t features, units, lanes;
};

constexpr LinearShape kLinear[] = {{784, 300, 64}, {300, 100, 64}, {784, 300, 128}, {300, 100, 256}, {512, 512, 16}};
// Behind convolutions, as of networks without a mean over all places.
constexpr LinearShape kWide[] = {{12544, 256, 64}, {4096, 512, 128}};

// On the calling thread: there are no slices.
class MeasuredLinear {
 public:
  MeasuredLinear(const LinearShape& shape, Isa isa)
      : shape_(shape),
        kernels_(kernels_f32(isa)),
        sparse_kernels_(sparse_kernels(isa, static_cast<const float*>(nullptr))),
        net_(compile({"measured", {shape.features}, 2,
                      {layer(LayerSpec::kLinear, "layer", "input", shape.units),
                       layer(LayerSpec::kLinear, "head", "layer", 2)}})),
        op_(operation(*net_, "layer")),
        store_(net_, Dtype::kFloat32, at::Device(at::kCPU), ParameterStore::kPacked, no_states()),
        x_(floats(shape.features * shape.lanes)),
        y_(floats(shape.units * shape.lanes)),
        dx_(floats(shape.features * shape.lanes)),
        rows_(floats(padded(shape.features) * shape.lanes)) {
    store_.initialise(0, 0, 0);
  }

  void measure(const Clock& clock, int rounds, Samples& samples) {
    for (double density : kDensities) {
      store_.set_masks(masks_of(*net_, op_.weight, density));
      store_.want_gradients(false);
      SparseLinear<float> sparse(store_, sparse_kernels_, LinearCosts{}, op_, true);
      sparse.set_mask(Products::kSparse, true);
      sparse.use(shape_.lanes);
      Times times, dense;
      repeat(clock, rounds, [&] {
        times.forward.push_back(clock.seconds([&] { sparse.forward(of(x_), nullptr, of(y_), 0, shape_.units); }));
        dense.forward.push_back(clock.seconds([&] { dense_forward(); }));
        times.backward.push_back(clock.seconds([&] { sparse.input_gradient(of(y_), of(dx_), 0, shape_.features); }));
        dense.backward.push_back(clock.seconds([&] { dense_input_gradient(); }));
        if (!sparse.gradient()) return;
        times.gradient.push_back(clock.seconds([&] { sparse.weight_gradient(of(y_), of(x_), 0, shape_.units); }));
        dense.gradient.push_back(clock.seconds([&] { dense_weight_gradient(); }));
      });
      const ProductWork work = sparse.work();
      // Both are chosen together.
      samples.products.push_back({work, (ratio(times.forward, dense.forward) + ratio(times.backward, dense.backward)) / 2});
      if (!sparse.gradient()) continue;
      samples.gradients.push_back({{work.dense, work.number, 1, work.places, 0}, ratio(times.gradient, dense.gradient)});
    }
  }

 private:
  static Arena floats(int64_t number) { return Arena(static_cast<size_t>(number) * sizeof(float)); }
  static float* of(const Arena& arena) { return as<float>(arena); }
  float* weights() { return store_.weights.data_ptr<float>() + net_->layout->parameters[op_.weight].offset; }

  // As exec/linear_layer.h makes them.
  void dense_forward() {
    kernels_.product(linear_forward<float>(weights(), nullptr, shape_.features, of(x_), of(y_), shape_.lanes, false), 0,
                     shape_.units, 0, shape_.lanes);
  }
  void dense_input_gradient() {
    kernels_.product(linear_input_gradient<float>(weights(), shape_.features, shape_.units, of(y_), of(dx_), shape_.lanes, false), 0,
                     shape_.features, 0, shape_.lanes);
  }
  void dense_weight_gradient() {
    kernels_.transpose(of(x_), shape_.lanes, of(rows_), padded(shape_.features), shape_.features, shape_.lanes);
    const Product<float> dw = linear_weight_gradient<float>(of(y_), shape_.lanes, shape_.lanes, of(rows_), padded(shape_.features),
                                                            shape_.features, store_.gradients_of<float>(op_.weight));
    for (int64_t k = 0; k < shape_.units; k += kRowsPerTask) {
      weight_gradient_rows(kernels_, dw, k, std::min(shape_.units, k + kRowsPerTask), store_, op_.weight);
    }
  }

  const LinearShape shape_;
  const Kernels<float>& kernels_;
  const SparseKernels<float>& sparse_kernels_;
  const std::shared_ptr<const CompiledNetwork> net_;
  const Operation& op_;
  ParameterStore store_;
  Arena x_, y_, dx_, rows_;
};

}  // namespace

std::optional<Tuning> measure_costs(Isa isa, int threads, int rounds, const std::function<bool()>& stopping) {
  const Clock clock{stopping, threads == 1};
  Pool pool(threads, [] { at::set_num_threads(1); });
  Tuning tuning;
  try {
    tuning.fp32 = of_convolutions<float>(isa, pool, rounds, clock);
    tuning.bf16 = of_convolutions<Bf16>(isa, pool, rounds, clock);
    const auto of_linear = [&](std::span<const LinearShape> shapes) {
      Samples samples;
      for (const LinearShape& shape : shapes) MeasuredLinear(shape, isa).measure({stopping, true}, rounds, samples);
      return samples.costs();
    };
    tuning.linear = of_linear(kLinear);
    tuning.wide = of_linear(kWide);
  } catch (const Stopped&) {
    return {};
  }
  return tuning;
}

}  // namespace lth
