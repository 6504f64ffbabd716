// A convolution through LibTorch: one thread and one slice each (oneDNN where it has one for the type).
#pragma once
#include <algorithm>
#include <numeric>
#include <tuple>
#include <vector>

#include "exec/images/values.h"

namespace lth {

template <typename S>
class Convolution {
  using R = Real<S>;
  static S* data(const at::Tensor& t) { return Values<S>::data(t); }
  static constexpr int64_t kWeightsPerTask = 1 << 15;  // converted, or summed over the slices

 public:
  Convolution(Values<S>& values, const Operation& op)
      : v_(values),
        op_(op),
        weight_(at::empty(shape(), Values<S>::options(), at::MemoryFormat::ChannelsLast)),
        slice_gradients_(values.most_slices) {
    if (op.bias < 0) return;
    bias_ = at::empty({shape()[0]}, Values<S>::options());
    bias_gradients_.resize(values.most_slices);
  }

  // Tasks that the conversion of its weights is cut into.
  int64_t conversions() const { return tasks_for(shape()[0], rows_per_task()); }

  // The masters (K,C,h,w) R -> (K,h,w,C) S.
  void convert(int64_t task) {
    const int64_t channels = shape()[1], area = shape()[2] * shape()[3], row = channels * area;
    const int64_t first = task * rows_per_task(), last = std::min(shape()[0], first + rows_per_task());
    std::vector<R> turned(row);
    for (int64_t k = first; k < last; ++k) {
      v_.vectors.transpose(v_.weights(op_.weight) + k * row, area, turned.data(), channels, channels, area);
      v_.images.narrow(turned.data(), data(weight_) + k * row, row);
    }
    if (op_.bias >= 0) v_.images.narrow(v_.weights(op_.bias) + first, data(bias_) + first, last - first);
  }

  void forward(int64_t slice) {
    const at::Tensor y = at::convolution(v_.image_tensor(op_.inputs[0], slice), weight_, bias_, {op_.stride.h, op_.stride.w},
                                         {op_.padding.h, op_.padding.w}, {1, 1}, false, {0, 0}, 1);
    v_.values[op_.output].made[slice] = y.contiguous(at::MemoryFormat::ChannelsLast);
  }

  void backward(int64_t slice) {
    const at::Tensor dy = v_.take(op_.output, slice);
    const bool wants_dx = op_.inputs[0] != v_.net.input;
    at::Tensor dx, dw, db;
    std::tie(dx, dw, db) = at::convolution_backward(
        dy, v_.image_tensor(op_.inputs[0], slice), weight_, c10::OptionalIntArrayRef(), {op_.stride.h, op_.stride.w},
        {op_.padding.h, op_.padding.w}, {1, 1}, false, {0, 0}, 1, {wants_dx, true, false});
    slice_gradients_[slice] = dw.contiguous(at::MemoryFormat::ChannelsLast);
    if (wants_dx) v_.give(op_.inputs[0], slice, dx.contiguous(at::MemoryFormat::ChannelsLast));
    if (op_.bias >= 0) {
      const int64_t period = std::lcm(v_.values[op_.output].channels, kLane);
      bias_gradients_[slice].resize(period);
      v_.images.column_sums(data(dy), v_.elements(op_.output, slice), period, bias_gradients_[slice].data());
    }
  }

  // The slices' weight gradients, in their order, (K,h,w,C) S -> (K,C,h,w) R.
  void join() {
    const int64_t units = shape()[0], channels = shape()[1], area = shape()[2] * shape()[3], row = channels * area;
    const int64_t rows = rows_per_task();
    R* to = v_.gradients(op_.weight);
    v_.pool.parallel(tasks_for(units, rows), [&](int64_t task) {
      std::vector<R> sum(row);
      for (int64_t k = task * rows; k < std::min(units, (task + 1) * rows); ++k) {
        v_.images.widen(data(slice_gradients_[0]) + k * row, sum.data(), row);
        for (int64_t s = 1; s < v_.slices; ++s) v_.images.widen_add(data(slice_gradients_[s]) + k * row, sum.data(), row);
        v_.vectors.transpose(sum.data(), channels, to + k * row, area, area, channels);
      }
    });
    if (op_.bias < 0) return;
    R* bias = v_.gradients(op_.bias);
    const int64_t period = std::lcm(units, kLane);
    for (int64_t k = 0; k < units; ++k) {
      double sum = 0;
      for (int64_t s = 0; s < v_.slices; ++s) {
        for (int64_t p = k; p < period; p += units) sum += bias_gradients_[s][p];
      }
      bias[k] = static_cast<R>(sum);
    }
  }

 private:
  const std::vector<int64_t>& shape() const { return v_.net.layout->parameters[op_.weight].shape; }
  int64_t rows_per_task() const { return std::max<int64_t>(1, kWeightsPerTask / (shape()[1] * shape()[2] * shape()[3])); }

  Values<S>& v_;
  const Operation& op_;
  at::Tensor weight_, bias_;  // as LibTorch's convolution reads them
  std::vector<at::Tensor> slice_gradients_;
  std::vector<std::vector<double>> bias_gradients_;
};

}  // namespace lth
