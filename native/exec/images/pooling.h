// Max and average pooling of images, and the mean over their places that turns them into vectors.
#pragma once
#include "exec/images/values.h"

namespace lth {

template <typename S>
class Pooling {
  using R = Real<S>;
  using Value = typename Values<S>::Value;

 public:
  explicit Pooling(Values<S>& values) : v_(values) {}

  void max_pool(const Operation& op, int64_t slice) {
    const S* x = v_.image(op.inputs[0], slice);
    S* y = v_.image(op.output, slice);
    over_planes(op, [&](int64_t planes, int64_t in, int64_t out) { v_.images.max_pool(v_.window(op), planes, x + in, y + out); });
  }

  void max_pool_backward(const Operation& op, int64_t slice, const S* dy, S* dx) {
    const S *x = v_.image(op.inputs[0], slice), *y = v_.image(op.output, slice);
    over_planes(op, [&](int64_t planes, int64_t in, int64_t out) {
      v_.images.max_pool_backward(v_.window(op), planes, x + in, y + out, dy + out, dx + in);
    });
  }

  void average_pool(const Operation& op, int64_t slice) {
    const S* x = v_.image(op.inputs[0], slice);
    S* y = v_.image(op.output, slice);
    over_planes(op, [&](int64_t planes, int64_t in, int64_t out) { v_.images.average_pool(v_.window(op), planes, x + in, y + out); });
  }

  void average_pool_backward(const Operation& op, const S* dy, S* dx) {
    over_planes(op, [&](int64_t planes, int64_t in, int64_t out) {
      v_.images.average_pool_backward(v_.window(op), planes, dy + out, dx + in);
    });
  }

  // Mean over the places: image -> columns.
  void global_pool(const Operation& op, int64_t slice) {
    const Value& in = v_.values[op.inputs[0]];
    v_.images.place_sums(v_.image(op.inputs[0], slice), in.channels, in.places, R(1) / static_cast<R>(in.places),
                         as<R>(v_.values[op.output].columns) + v_.first(slice), v_.all_lanes);
  }

  void global_pool_backward(const Operation& op, int64_t slice, S* dx) {
    const Value& in = v_.values[op.inputs[0]];
    v_.images.spread(as<R>(v_.values[op.output].gradient) + v_.first(slice), v_.all_lanes, in.channels, in.places,
                     R(1) / static_cast<R>(in.places), dx);
  }

 private:
  // f(how many planes, where the first one begins in the input and in the output)
  template <typename F>
  void over_planes(const Operation& op, F&& f) {
    const Value &in = v_.values[op.inputs[0]], &out = v_.values[op.output];
    v_.in_parts(out.planes, [&](int64_t from, int64_t to) {
      f(to - from, from * in.places * kCell<S>, from * out.places * kCell<S>);
    });
  }

  Values<S>& v_;
};

}  // namespace lth
