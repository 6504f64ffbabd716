// Max pooling of images, and the mean over their places that turns them into vectors.
#pragma once
#include <cstring>
#include <numeric>
#include <vector>

#include "exec/images/values.h"

namespace lth {

template <typename S>
class Pooling {
  using R = Real<S>;
  using Value = typename Values<S>::Value;
  static S* data(const at::Tensor& t) { return Values<S>::data(t); }

 public:
  explicit Pooling(Values<S>& values) : v_(values) {}

  void max_pool(const Operation& op, int64_t slice) {
    const int64_t in = v_.values[op.inputs[0]].features, out = v_.values[op.output].features;
    for (int64_t n = 0; n < v_.examples(slice); ++n) {
      v_.images.max_pool(window(op), v_.image(op.inputs[0], slice) + n * in, v_.image(op.output, slice) + n * out);
    }
  }

  void max_pool_backward(const Operation& op, int64_t slice) {
    const int64_t in = v_.values[op.inputs[0]].features, out = v_.values[op.output].features;
    const at::Tensor dy = v_.take(op.output, slice);
    if (op.inputs[0] == v_.net.input) return;
    const at::Tensor dx = v_.empty_image(op.inputs[0], slice);
    for (int64_t n = 0; n < v_.examples(slice); ++n) {
      v_.images.max_pool_backward(window(op), v_.image(op.inputs[0], slice) + n * in, v_.image(op.output, slice) + n * out,
                                data(dy) + n * out, data(dx) + n * in);
    }
    v_.give(op.inputs[0], slice, dx);
  }

  // Mean over the places: image -> columns.
  void global_pool(const Operation& op, int64_t slice) {
    const Value& in = v_.values[op.inputs[0]];
    R* to = as<R>(v_.values[op.output].columns);
    const int64_t period = std::lcm(in.channels, kLane);
    std::vector<double> sums(period);
    for (int64_t n = 0; n < v_.examples(slice); ++n) {
      v_.images.column_sums(v_.image(op.inputs[0], slice) + n * in.features, in.features, period, sums.data());
      for (int64_t c = 0; c < in.channels; ++c) {
        double sum = 0;
        for (int64_t p = c; p < period; p += in.channels) sum += sums[p];
        to[c * v_.all_lanes + v_.first(slice) + n] = static_cast<R>(sum / static_cast<double>(in.places));
      }
    }
  }

  void global_pool_backward(const Operation& op, int64_t slice) {
    if (op.inputs[0] == v_.net.input) return;
    const Value& in = v_.values[op.inputs[0]];
    const R* d = as<R>(v_.values[op.output].gradient);
    const at::Tensor dx = v_.empty_image(op.inputs[0], slice);
    std::vector<R> one(in.channels);
    S* to = data(dx);
    for (int64_t n = 0; n < v_.examples(slice); ++n) {
      for (int64_t c = 0; c < in.channels; ++c) one[c] = d[c * v_.all_lanes + v_.first(slice) + n] / static_cast<R>(in.places);
      v_.images.narrow(one.data(), to, in.channels);
      for (int64_t p = 1; p < in.places; ++p) std::memcpy(to + p * in.channels, to, in.channels * sizeof(S));
      to += in.features;
    }
    v_.give(op.inputs[0], slice, dx);
  }

 private:
  Window window(const Operation& op) const {
    const Value &in = v_.values[op.inputs[0]], &out = v_.values[op.output];
    return {in.height, in.width, in.channels, out.height, out.width, op.kernel.h, op.kernel.w, op.stride.h, op.stride.w,
            op.padding.h, op.padding.w};
  }

  Values<S>& v_;
};

}  // namespace lth
