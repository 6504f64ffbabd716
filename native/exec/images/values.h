// The values of a network with convolutions while a batch goes through it on the CPU, and how they are cut into slices.
//
// Images are (N, H, W, C), the channel innermost, in the storage type S (float, bf16 or double); vectors of features,
// which follow global pooling, are (features, L) with the batch innermost in R, as direct_cpu.cc has them. Slices have a
// fixed number of examples and are what threads share: their bits do not depend on how many there are.
#pragma once
#include <algorithm>
#include <cstring>
#include <exception>
#include <vector>

#include "exec/aten.h"
#include "exec/executor.h"
#include "kernels/layers.h"

namespace lth {

constexpr at::ScalarType type_of(const float*) { return at::kFloat; }
constexpr at::ScalarType type_of(const double*) { return at::kDouble; }
constexpr at::ScalarType type_of(const Bf16*) { return at::kBFloat16; }

template <typename T>
T* as(const Arena& arena) {
  return reinterpret_cast<T*>(arena.data());
}

template <typename S>
class Values {
  using R = Real<S>;

 public:
  struct Value {
    int64_t features = 0, channels = 0, places = 0, height = 0, width = 0;
    bool image = false;
    bool made_by_convolution = false;
    Arena storage;                 // image: (N, places, channels) S
    std::vector<at::Tensor> made;  // per slice, of a convolution, in LibTorch's memory
    // What has been given of an image's gradient: one or two tensors per slice, to be added.
    std::vector<std::vector<at::Tensor>> gradients;
    // A vector, or an image that a linear layer reads: (features, L) R, in the order C, H, W.
    Arena columns, rows, gradient;
    int64_t row_stride = 0;
    std::vector<char> ready;  // per slice: `gradient` holds something
  };

  // `capacity` examples at most.
  Values(ParameterStore& parameters, Pool& threads, const LayerKernels<S>& of_images, const Kernels<R>& of_vectors,
         int64_t examples_per_slice, int64_t capacity)
      : store(parameters),
        pool(threads),
        images(of_images),
        vectors(of_vectors),
        net(*parameters.network),
        slice_size(examples_per_slice),
        capacity(tasks_for(capacity, examples_per_slice) * examples_per_slice),
        most_slices(this->capacity / slice_size),
        errors_(most_slices) {
    make();
  }

  void begin(int64_t batch) {
    n = batch;
    all_lanes = padded(n);
    slices = tasks_for(n, slice_size);
  }

  void forget_gradients() {
    for (Value& v : values) {
      std::fill(v.ready.begin(), v.ready.end(), false);
      for (auto& given : v.gradients) given.clear();
    }
  }

  // ---- Parameters

  R* weights(int index) { return store.weights.template data_ptr<R>() + net.layout->parameters[index].offset; }
  R* gradients(int index) { return store.gradients.template data_ptr<R>() + net.layout->parameters[index].offset; }

  // ---- Slices

  int64_t first(int64_t slice) const { return slice * slice_size; }
  int64_t examples(int64_t slice) const { return std::min(slice_size, n - first(slice)); }
  // Lanes of the columns that are a slice's; the last slice has those behind N too.
  int64_t lanes(int64_t slice) const { return std::min(slice_size, all_lanes - first(slice)); }
  int64_t elements(int value, int64_t slice) const { return examples(slice) * values[value].features; }

  // LibTorch throws (out of memory), and a task of the pool must not: the first slice's exception goes on here.
  template <typename F>
  void parallel(int64_t tasks, F&& f) {
    std::fill(errors_.begin(), errors_.end(), nullptr);
    pool.parallel(tasks, [&](int64_t task) {
      const at::AutoDispatchBelowADInplaceOrView below_autograd;
      try {
        f(task);
      } catch (...) {
        errors_[task] = std::current_exception();
      }
    });
    for (const std::exception_ptr& error : errors_) {
      if (error) std::rethrow_exception(error);
    }
  }

  // ---- Images

  static at::TensorOptions options() { return at::TensorOptions().dtype(type_of(static_cast<const S*>(nullptr))); }

  S* image(int value, int64_t slice) {
    Value& v = values[value];
    if (v.made_by_convolution) return data(v.made[slice]);
    return as<S>(v.storage) + first(slice) * v.features;
  }

  static S* data(const at::Tensor& t) { return static_cast<S*>(t.mutable_data_ptr()); }

  at::Tensor image_tensor(int value, int64_t slice) {
    const Value& v = values[value];
    if (v.made_by_convolution) return v.made[slice];
    const int64_t c = v.channels;
    return at::from_blob(image(value, slice), {examples(slice), c, v.height, v.width},
                         {v.features, 1, v.width * c, c}, options());
  }

  at::Tensor empty_image(int value, int64_t slice) {
    const Value& v = values[value];
    return at::empty({examples(slice), v.channels, v.height, v.width}, options(), at::MemoryFormat::ChannelsLast);
  }

  // The gradient of an image's slice, or its second part. Tensors that are given belong to the value: it may write there.
  void give(int value, int64_t slice, at::Tensor d) {
    if (value == net.input) return;
    std::vector<at::Tensor>& given = values[value].gradients[slice];
    if (given.size() == 2) {
      images.add(data(given[0]), data(d), data(given[0]), elements(value, slice));
    } else {
      given.push_back(std::move(d));
    }
  }

  // All that was given, in one tensor.
  at::Tensor take(int value, int64_t slice) {
    std::vector<at::Tensor>& given = values[value].gradients[slice];
    if (given.size() == 2) images.add(data(given[0]), data(given[1]), data(given[0]), elements(value, slice));
    at::Tensor sum = std::move(given[0]);
    given.clear();
    return sum;
  }

  // ---- Vectors

  // f(offset of a feature's lanes of the slice) for each feature.
  template <typename F>
  void over_columns(const Value& v, int64_t slice, F&& f) {
    for (int64_t feature = 0; feature < v.features; ++feature) f(feature * all_lanes + first(slice));
  }

  void give_columns(int value, int64_t slice, const R* d) {
    Value& v = values[value];
    R* to = as<R>(v.gradient);
    over_columns(v, slice, [&](int64_t at) {
      if (v.ready[slice]) {
        vectors.add(to + at, d + at, to + at, lanes(slice));
      } else {
        std::memcpy(to + at, d + at, static_cast<size_t>(lanes(slice)) * sizeof(R));
      }
    });
    v.ready[slice] = true;
  }

  void gate_columns(const Value& out, int64_t slice) {
    over_columns(out, slice, [&](int64_t at) {
      vectors.relu_backward(as<R>(out.columns) + at, as<R>(out.gradient) + at, lanes(slice));
    });
  }

  ParameterStore& store;
  Pool& pool;
  const LayerKernels<S>& images;
  const Kernels<R>& vectors;
  const CompiledNetwork& net;
  const int64_t slice_size, capacity, most_slices;
  std::vector<Value> values;
  // Of the batch at hand: its examples, those padded to kLane, its slices.
  int64_t n = 0, all_lanes = 0, slices = 0;

 private:
  void make() {
    values.resize(net.values.size());
    for (size_t i = 0; i < values.size(); ++i) {
      Value& v = values[i];
      const std::vector<int64_t>& shape = net.values[i].shape;
      v.features = net.values[i].features;
      v.image = shape.size() == 3;
      v.channels = shape[0];
      v.places = v.features / v.channels;
      if (v.image) {
        v.height = shape[1];
        v.width = shape[2];
        v.made.resize(most_slices);
        v.gradients.resize(most_slices);
      }
      v.row_stride = padded(v.features);
      v.ready.resize(most_slices);
    }
    std::vector<bool> as_rows(values.size());
    for (const Operation& op : net.operations) {
      if (op.type == Operation::kConvolution) values[op.output].made_by_convolution = true;
      if (op.type == Operation::kLinear) as_rows[op.inputs[0]] = true;
    }
    const auto elements = [&](int64_t n) { return static_cast<size_t>(n * capacity); };
    for (size_t i = 0; i < values.size(); ++i) {
      Value& v = values[i];
      if (v.image && !v.made_by_convolution) v.storage = Arena(elements(v.features) * sizeof(S));
      if (!v.image || as_rows[i]) {
        v.columns = Arena(elements(v.features) * sizeof(R));
        v.gradient = Arena(elements(v.features) * sizeof(R));
      }
      if (as_rows[i]) v.rows = Arena(elements(v.row_stride) * sizeof(R));
    }
  }

  std::vector<std::exception_ptr> errors_;
};

}  // namespace lth
