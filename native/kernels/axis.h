// What a convolution and its gradient read along one axis.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels/layers.h"

namespace lth {

// Of all output places together: the taps that see a place of the input.
int64_t taps_seen(int64_t size, int64_t out_size, int64_t kernel, int64_t stride, int64_t padding);

class AxisPlan {
 public:
  AxisPlan() = default;
  // Output place o reads o * stride - padding + tap. `in_pairs`: two places at once where there are two.
  static AxisPlan forward(int64_t size, int64_t out_size, int64_t kernel, int64_t stride, int64_t padding, bool in_pairs);
  // The same the other way round: the places of dX, and what they get from dY.
  static AxisPlan backward(int64_t size, int64_t out_size, int64_t kernel, int64_t stride, int64_t padding, bool in_pairs);

  // As long as the plan lives.
  Axis axis() const { return {taps_.data(), pairs_.data(), static_cast<int64_t>(pairs_.size()), step_}; }

 private:
  template <typename F>
  AxisPlan(int64_t places, int64_t distance, int64_t step, bool in_pairs, F&& reads);

  std::vector<Axis::Tap> taps_;
  std::vector<Axis::Pair> pairs_;
  int64_t step_ = 1;
};

}  // namespace lth
