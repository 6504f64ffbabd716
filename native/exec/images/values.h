// The values of a network with convolutions while a batch goes through it on the CPU, and how they are cut into slices.
//
// A slice is kLane examples and what threads share out: no bit depends on how many there are. Of each slice, images are
// (planes, places, kLane, kPack) in the storage type S (kernels/layers.h); vectors of features, which follow global
// pooling, are (features, L) of R, as direct_cpu.cc has them. All memory of theirs is taken when the executor is made.
#pragma once
#include <algorithm>
#include <cstring>
#include <vector>

#include "core/snapshot.h"
#include "exec/executor.h"
#include "kernels/layers.h"

namespace lth {

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
    int64_t planes = 0, elements = 0;  // elements: S of an image's slice
    Arena storage;                     // image: (slices, elements) S, unless it lies in another
    int whole = -1;                    // the concatenation it lies in, from this channel on
    int64_t channel = 0;
    S* data = nullptr;                 // of the first slice
    int64_t step = 0;                  // from there to the next
    // Vector: (features, L) R; rows: (L, features), where a linear layer reads it.
    Arena columns, rows, gradient;
    int64_t row_stride = 0;
    std::vector<char> ready;  // per slice: `gradient` holds something
  };

  // `capacity` examples at most, `training` where there are gradients.
  Values(ParameterStore& parameters, Pool& threads, const LayerKernels<S>& of_images, const Kernels<R>& of_vectors,
         int64_t capacity, int64_t training)
      : store(parameters),
        pool(threads),
        images(of_images),
        vectors(of_vectors),
        net(*parameters.network),
        capacity(padded(capacity)),
        most_slices(this->capacity / kLane),
        training_slices(tasks_for(training, kLane)) {
    make();
  }

  void begin(int64_t batch) {
    n = batch;
    all_lanes = padded(n);
    slices = tasks_for(n, kLane);
    for (Value& v : values) std::fill(v.ready.begin(), v.ready.end(), false);
  }

  // ---- Parameters

  R* weights(int index) { return store.weights.template data_ptr<R>() + net.layout->parameters[index].offset; }
  R* gradients(int index) { return store.template gradients_of<R>(index); }

  // ---- Slices

  int64_t first(int64_t slice) const { return slice * kLane; }
  int64_t examples(int64_t slice) const { return std::min(kLane, n - first(slice)); }

  // f(slice) for each slice. A thread has a slice to itself, so that what it makes stays in its core's cache, but for those
  // that are left over where half the threads or more would have none: all threads go through them together, in parts.
  template <typename F>
  void over_slices(F&& f) {
    const int64_t left = slices % pool.threads(), together = 2 * left <= pool.threads() ? left : 0;
    pool.parallel(slices - together, f);
    together_ = true;
    for (int64_t slice = slices - together; slice < slices; ++slice) f(slice);
    together_ = false;
  }

  // Called for a slice: f(from, to) for parts of [0, number) that threads share out, or for all of it where one has the slice
  // to itself. What f makes of an index must not depend on the part that it is in.
  template <typename F>
  void in_parts(int64_t number, F&& f) {
    if (!together_) return f(int64_t{0}, number);
    const int64_t parts = std::min(number, kPartsOfThread * pool.threads());
    pool.parallel(parts, [&](int64_t part) { f(number * part / parts, number * (part + 1) / parts); });
  }

  // ---- Images

  S* image(int value, int64_t slice) { return values[value].data + slice * values[value].step; }

  // Is the part of a concatenation, from this channel on, the value itself? Then its planes are the whole's.
  bool lies_in(int value, int whole, int64_t channel) const {
    return values[value].whole == whole && values[value].channel == channel;
  }
  // From an image's first element to that of a channel that begins a plane.
  int64_t offset_of(int value, int64_t channel) const { return channel / kPack<S> * values[value].places * kCell<S>; }

  Window window(const Operation& op) const {
    const Value &in = values[op.inputs[0]], &out = values[op.output];
    return {in.height, in.width, out.height, out.width, op.kernel.h, op.kernel.w, op.stride.h, op.stride.w, op.padding.h,
            op.padding.w};
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
        vectors.add(to + at, d + at, to + at, kLane);
      } else {
        std::memcpy(to + at, d + at, kLane * sizeof(R));
      }
    });
    v.ready[slice] = true;
  }

  void gate_columns(const Value& out, int64_t slice) {
    over_columns(out, slice, [&](int64_t at) {
      vectors.relu_backward(as<R>(out.columns) + at, as<R>(out.gradient) + at, kLane);
    });
  }

  ParameterStore& store;
  Pool& pool;
  const LayerKernels<S>& images;
  const Kernels<R>& vectors;
  const CompiledNetwork& net;
  const int64_t capacity, most_slices, training_slices;
  std::vector<Value> values;
  // Of the batch at hand: its examples, those padded to kLane, its slices.
  int64_t n = 0, all_lanes = 0, slices = 0;

 private:
  static constexpr int64_t kPartsOfThread = 4;  // so that one that is held up has some taken from it

  void make() {
    values.resize(net.values.size());
    std::vector<bool> as_rows(values.size());
    for (const Operation& op : net.operations) {
      if (op.type == Operation::kLinear) as_rows[op.inputs[0]] = true;
    }
    for (size_t i = 0; i < values.size(); ++i) {
      Value& v = values[i];
      const std::vector<int64_t>& shape = net.values[i].shape;
      v.features = net.values[i].features;
      v.image = shape.size() == 3;
      v.channels = shape[0];
      v.places = v.features / v.channels;
      v.row_stride = padded(v.features);
      v.ready.resize(most_slices);
      const auto bytes = [&](int64_t each) { return static_cast<size_t>(each * capacity) * sizeof(R); };
      if (v.image) {
        v.height = shape[1];
        v.width = shape[2];
        v.planes = planes_of<S>(v.channels);
        v.elements = v.planes * v.places * kCell<S>;
      } else {
        v.columns = Arena(bytes(v.features));
        v.gradient = Arena(bytes(v.features));
      }
      if (as_rows[i]) v.rows = Arena(bytes(v.row_stride));
    }
    find_parts();
    // What an image lies in comes after it.
    for (auto v = values.rbegin(); v != values.rend(); ++v) {
      if (!v->image) continue;
      if (v->whole < 0) {
        v->storage = Arena(static_cast<size_t>(v->elements * most_slices) * sizeof(S));
        v->data = as<S>(v->storage);
        v->step = v->elements;
      } else {
        v->data = values[v->whole].data + offset_of(v->whole, v->channel);
        v->step = values[v->whole].step;
      }
    }
  }

  // Images that are concatenated lie where the whole one does, plane by plane: nothing need be copied. Each can do so once,
  // and only in planes that are its own.
  void find_parts() {
    for (const Operation& op : net.operations) {
      if (op.type != Operation::kConcat || !values[op.output].image) continue;
      int64_t channel = 0;
      for (int part : op.inputs) {
        Value& v = values[part];
        const int64_t end = channel + v.channels;
        const bool whole_planes = channel % kPack<S> == 0 && (end % kPack<S> == 0 || end == values[op.output].channels);
        if (part != net.input && v.whole < 0 && whole_planes) {
          v.whole = op.output;
          v.channel = channel;
        }
        channel = end;
      }
    }
  }

  bool together_ = false;  // is the slice at hand all threads'?
};

}  // namespace lth
