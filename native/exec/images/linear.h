// Linear layers behind convolutions: vectors with the batch innermost; and images flattened for them.
#pragma once
#include <algorithm>
#include <vector>

#include "exec/images/values.h"
#include "exec/linear_products.h"

namespace lth {

template <typename S>
class Linear {
  using R = Real<S>;
  using Value = typename Values<S>::Value;
  static constexpr int64_t kRowsPerTask = 24;  // as in direct_cpu.cc

 public:
  explicit Linear(Values<S>& values) : v_(values) {}

  // y(K, lanes) = w(K, C) x(C, lanes) + bias
  void forward(const Operation& op, int64_t slice) {
    const Value &in = v_.values[op.inputs[0]], &out = v_.values[op.output];
    const R* bias = op.bias >= 0 ? v_.weights(op.bias) : nullptr;
    const Product<R> p = linear_forward<R>(v_.weights(op.weight), bias, in.features, as<R>(in.columns), as<R>(out.columns),
                                        v_.all_lanes, op.fused_relu);
    v_.vectors.product(p, 0, out.features, v_.first(slice), v_.first(slice) + kLane);
  }

  // dx(C, lanes) = w^T dy
  void backward(const Operation& op, int64_t slice) {
    Value &in = v_.values[op.inputs[0]], &out = v_.values[op.output];
    if (op.fused_relu) v_.gate_columns(out, slice);
    if (op.inputs[0] == v_.net.input) return;
    const Product<R> dx = linear_input_gradient<R>(v_.weights(op.weight), in.features, out.features, as<R>(out.gradient),
                                                as<R>(in.gradient), v_.all_lanes, in.ready[slice]);
    v_.vectors.product(dx, 0, in.features, v_.first(slice), v_.first(slice) + kLane);
    in.ready[slice] = true;
  }

  // dw(K, C) = dy(K, N) x(N, C); dbias(K) = row sums of dy
  void join(const Operation& op) {
    const Value &in = v_.values[op.inputs[0]], &out = v_.values[op.output];
    const R* dy = as<R>(out.gradient);
    v_.pool.parallel(tasks_for(in.features, kRowsPerTask), [&](int64_t task) {
      const int64_t c0 = task * kRowsPerTask, c1 = std::min(in.features, c0 + kRowsPerTask);
      v_.vectors.transpose(as<R>(in.columns) + c0 * v_.all_lanes, v_.all_lanes, as<R>(in.rows) + c0, in.row_stride, c1 - c0, v_.all_lanes);
    });
    const Product<R> dw = linear_weight_gradient<R>(dy, v_.all_lanes, v_.n, as<R>(in.rows), in.row_stride, in.features,
                                                 v_.gradients(op.weight));
    v_.pool.parallel(tasks_for(out.features, kRowsPerTask), [&](int64_t task) {
      const int64_t k0 = task * kRowsPerTask, k1 = std::min(out.features, k0 + kRowsPerTask);
      weight_gradient_rows(v_.vectors, dw, k0, k1, v_.store, op.weight);
      if (op.bias >= 0) {
        v_.vectors.row_sum(dy + k0 * v_.all_lanes, v_.all_lanes, v_.gradients(op.bias) + k0, k1 - k0, v_.all_lanes);
      }
    });
  }

  // An image as a vector, in the order C, H, W.
  void flatten(const Operation& op, int64_t slice) {
    const Value& in = v_.values[op.inputs[0]];
    v_.images.flatten(v_.image(op.inputs[0], slice), in.channels, in.places,
                      as<R>(v_.values[op.output].columns) + v_.first(slice), v_.all_lanes);
  }

  void flatten_backward(const Operation& op, int64_t slice, S* dx) {
    const Value& in = v_.values[op.inputs[0]];
    v_.images.unflatten(as<R>(v_.values[op.output].gradient) + v_.first(slice), v_.all_lanes, in.channels, in.places, dx);
  }

 private:
  Values<S>& v_;
};

}  // namespace lth
