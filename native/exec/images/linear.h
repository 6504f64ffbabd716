// Linear layers behind convolutions: vectors with the batch innermost; and images flattened for them.
//
// A layer's weights may be millions: it makes its products for all slices at once, between two stages, so that weights are
// read once a batch and not once a slice.
#pragma once
#include <algorithm>

#include "exec/images/values.h"
#include "exec/linear_layer.h"

namespace lth {

template <typename S>
class Linear {
  using R = Real<S>;
  using Value = typename Values<S>::Value;

 public:
  Linear(Values<S>& values, const SparseKernels<R>& sparse, const LinearCosts& costs, const Operation& op)
      : v_(values),
        op_(op),
        wants_dx_(!values.net.holds_examples(op.inputs[0])),
        layer_(values.store, values.pool, values.vectors, sparse, costs, op, wants_dx_) {}

  void set_mask(Products products, bool left_alone) { layer_.set_mask(products, left_alone); }
  void begin(int64_t batch) { layer_.begin(batch); }
  KernelChoice kernels() const { return layer_.kernels(); }

  // ---- Of all slices

  void forward() {
    layer_.forward(as<R>(in().columns), as<R>(out().columns), [](int64_t, int64_t) {});
  }

  void backward() {
    Value& in = this->in();
    if (layer_.reads_rows()) {
      over_rows(v_.pool, in.features, [&](int64_t c0, int64_t c1) {
        v_.vectors.transpose(as<R>(in.columns) + c0 * v_.all_lanes, v_.all_lanes, as<R>(in.rows) + c0, in.row_stride, c1 - c0,
                             v_.all_lanes);
      });
    }
    // A reader of the same value that has given its share has done so for all slices.
    layer_.backward(as<R>(out().gradient), as<R>(in.columns), as<R>(in.rows), in.row_stride, as<R>(in.gradient), in.ready[0]);
    if (wants_dx_) std::fill(in.ready.begin(), in.ready.end(), true);
  }

  // ---- On a slice, before `backward`

  void gate(int64_t slice) {
    if (op_.fused_relu) v_.gate_columns(out(), slice);
  }

 private:
  Value& in() { return v_.values[op_.inputs[0]]; }
  Value& out() { return v_.values[op_.output]; }

  Values<S>& v_;
  const Operation& op_;
  const bool wants_dx_;
  LinearLayer<R> layer_;
};

// An image as a vector, in the order C, H, W.
template <typename S>
class Flatten {
  using R = Real<S>;

 public:
  explicit Flatten(Values<S>& values) : v_(values) {}

  void forward(const Operation& op, int64_t slice) {
    const auto& in = v_.values[op.inputs[0]];
    v_.images.flatten(v_.image(op.inputs[0], slice), in.channels, in.places,
                      as<R>(v_.values[op.output].columns) + v_.first(slice), v_.all_lanes);
  }

  void backward(const Operation& op, int64_t slice, S* dx) {
    const auto& in = v_.values[op.inputs[0]];
    v_.images.unflatten(as<R>(v_.values[op.output].gradient) + v_.first(slice), v_.all_lanes, in.channels, in.places, dx);
  }

 private:
  Values<S>& v_;
};

}  // namespace lth
