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
    v_.images.max_pool(v_.window(op), v_.values[op.output].planes, v_.image(op.inputs[0], slice), v_.image(op.output, slice));
  }

  void max_pool_backward(const Operation& op, int64_t slice, const S* dy, S* dx) {
    v_.images.max_pool_backward(v_.window(op), v_.values[op.output].planes, v_.image(op.inputs[0], slice),
                                v_.image(op.output, slice), dy, dx);
  }

  void average_pool(const Operation& op, int64_t slice) {
    v_.images.average_pool(v_.window(op), v_.values[op.output].planes, v_.image(op.inputs[0], slice), v_.image(op.output, slice));
  }

  void average_pool_backward(const Operation& op, const S* dy, S* dx) {
    v_.images.average_pool_backward(v_.window(op), v_.values[op.output].planes, dy, dx);
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
  Values<S>& v_;
};

}  // namespace lth
