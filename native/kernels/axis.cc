#include "kernels/axis.h"

namespace lth {

// reads(place, f) calls f(tap, in) for what the place reads; `distance` further the same taps read `step` further.
template <typename F>
AxisPlan::AxisPlan(int64_t places, int64_t distance, int64_t step, bool in_pairs, F&& reads) : step_(step) {
  const auto add = [&](int64_t first, int64_t second) {
    const auto from = static_cast<int32_t>(taps_.size());
    reads(first, [&](int64_t tap, int64_t in) {
      taps_.push_back({static_cast<int32_t>(tap), static_cast<int32_t>(in), true, false});
    });
    const auto end = static_cast<int32_t>(taps_.size());
    if (second >= 0) {
      reads(second, [&](int64_t tap, int64_t in) {
        for (int32_t i = from; i < end; ++i) {
          if (taps_[i].tap == tap) {
            taps_[i].second = true;
            return;
          }
        }
        taps_.push_back({static_cast<int32_t>(tap), static_cast<int32_t>(in - step), false, true});
      });
    }
    pairs_.push_back({static_cast<int32_t>(first), static_cast<int32_t>(second), from, static_cast<int32_t>(taps_.size())});
  };
  if (!in_pairs) {
    for (int64_t o = 0; o < places; ++o) add(o, -1);
    return;
  }
  for (int64_t block = 0; block < places; block += 2 * distance) {
    for (int64_t o = block; o < block + distance && o < places; ++o) add(o, o + distance < places ? o + distance : -1);
  }
}

int64_t taps_seen(int64_t size, int64_t out_size, int64_t kernel, int64_t stride, int64_t padding) {
  int64_t seen = 0;
  for (int64_t o = 0; o < out_size; ++o) {
    for (int64_t tap = 0; tap < kernel; ++tap) {
      const int64_t in = o * stride - padding + tap;
      seen += in >= 0 && in < size;
    }
  }
  return seen;
}

AxisPlan AxisPlan::forward(int64_t size, int64_t out_size, int64_t kernel, int64_t stride, int64_t padding, bool in_pairs) {
  return {out_size, 1, stride, in_pairs, [=](int64_t o, auto&& f) {
            for (int64_t tap = 0; tap < kernel; ++tap) {
              const int64_t in = o * stride - padding + tap;
              if (in >= 0 && in < size) f(tap, in);
            }
          }};
}

AxisPlan AxisPlan::backward(int64_t size, int64_t out_size, int64_t kernel, int64_t stride, int64_t padding, bool in_pairs) {
  return {size, stride, 1, in_pairs, [=](int64_t i, auto&& f) {
            for (int64_t tap = 0; tap < kernel; ++tap) {
              const int64_t from = i + padding - tap;
              if (from >= 0 && from % stride == 0 && from / stride < out_size) f(tap, from / stride);
            }
          }};
}

}  // namespace lth
