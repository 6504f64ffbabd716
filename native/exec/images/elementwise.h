// ReLU and sums that no operation before them has taken in.
#pragma once
#include "exec/images/values.h"

namespace lth {

template <typename S>
class Elementwise {
  using R = Real<S>;
  using Value = typename Values<S>::Value;

 public:
  explicit Elementwise(Values<S>& values) : v_(values) {}

  void relu(const Operation& op, int64_t slice) {
    const Value &in = v_.values[op.inputs[0]], &out = v_.values[op.output];
    if (out.image) return relu(v_.image(op.inputs[0], slice), v_.image(op.output, slice), out.elements);
    v_.over_columns(out, slice, [&](int64_t at) { v_.vectors.relu(as<R>(in.columns) + at, as<R>(out.columns) + at, kLane); });
  }

  // Over what a convolution has made.
  void relu_in_place(const Operation& op, int64_t slice) {
    S* y = v_.image(op.output, slice);
    relu(y, y, v_.values[op.output].elements);
  }

  void relu_backward(const Operation& op, int64_t slice, const S* dy, S* dx) {
    const S* y = v_.image(op.output, slice);
    over_cells(v_.values[op.output].elements, [&](int64_t at, int64_t n) { v_.images.relu_backward(y + at, dy + at, dx + at, n); });
  }

  void relu_backward_of_vectors(const Operation& op, int64_t slice) {
    const Value& out = v_.values[op.output];
    v_.gate_columns(out, slice);
    v_.give_columns(op.inputs[0], slice, as<R>(out.gradient));
  }

  void add(const Operation& op, int64_t slice) {
    const Value& out = v_.values[op.output];
    for (size_t i = 1; i < op.inputs.size(); ++i) {
      const int left = i == 1 ? op.inputs[0] : op.output;
      if (out.image) {
        add(v_.image(left, slice), v_.image(op.inputs[i], slice), v_.image(op.output, slice), out.elements);
      } else {
        v_.over_columns(out, slice, [&](int64_t at) {
          v_.vectors.add(as<R>(v_.values[left].columns) + at, as<R>(v_.values[op.inputs[i]].columns) + at,
                         as<R>(out.columns) + at, kLane);
        });
      }
    }
  }

  void add(const S* a, const S* b, S* to, int64_t elements) {
    over_cells(elements, [&](int64_t at, int64_t n) { v_.images.add(a + at, b + at, to + at, n); });
  }

  void add_backward_of_vectors(const Operation& op, int64_t slice) {
    for (int input : op.inputs) v_.give_columns(input, slice, as<R>(v_.values[op.output].gradient));
  }

 private:
  void relu(const S* x, S* y, int64_t elements) {
    over_cells(elements, [&](int64_t at, int64_t n) { v_.images.relu(x + at, y + at, n); });
  }

  // f(first element, how many) of whole cells
  template <typename F>
  void over_cells(int64_t elements, F&& f) {
    v_.in_parts(elements / kCell<S>, [&](int64_t from, int64_t to) { f(from * kCell<S>, (to - from) * kCell<S>); });
  }

  Values<S>& v_;
};

}  // namespace lth
