#include "kernels/sparse_plan.h"

#include <algorithm>
#include <numeric>
#include <tuple>

namespace lth {

template <typename F>
void SparseAxis::group(int64_t places, int64_t step, int64_t in_step, F&& f) {
  for (int64_t phase = 0; phase < std::min(step, places); ++phase) {
    const size_t begin = groups.size();
    for (int64_t place = phase; place < places; place += step) {
      const auto [in, from, to] = f(place);
      if (groups.size() > begin && groups.back().from == from && groups.back().to == to) {
        ++groups.back().count;
      } else {
        groups.push_back({place, step, 1, in, in_step, from, to});
      }
    }
  }
}

SparseAxis SparseAxis::forward(int64_t size, int64_t out_size, int64_t kernel, int64_t stride, int64_t padding) {
  SparseAxis axis;
  axis.taps.resize(kernel);
  std::iota(axis.taps.begin(), axis.taps.end(), 0);
  axis.offsets = axis.taps;
  axis.group(out_size, 1, stride, [&](int64_t o) {
    const int64_t in = o * stride - padding, from = std::clamp<int64_t>(-in, 0, kernel);
    return std::tuple(in, from, std::clamp<int64_t>(size - in, from, kernel));
  });
  return axis;
}

SparseAxis SparseAxis::backward(int64_t size, int64_t out_size, int64_t kernel, int64_t stride, int64_t padding) {
  SparseAxis axis;
  // By their remainder, and of one remainder by themselves.
  std::vector<int64_t> begins;
  for (int64_t remainder = 0; remainder < stride; ++remainder) {
    begins.push_back(static_cast<int64_t>(axis.taps.size()));
    for (int64_t tap = remainder; tap < kernel; tap += stride) {
      axis.taps.push_back(tap);
      axis.offsets.push_back(-(tap / stride));
    }
  }
  begins.push_back(static_cast<int64_t>(axis.taps.size()));
  axis.group(size, stride, 1, [&](int64_t i) {
    const int64_t in = (i + padding) / stride, remainder = (i + padding) % stride;
    const int64_t begin = begins[remainder], number = begins[remainder + 1] - begin;
    // Tap m of this remainder reads in - m, which must be in [0, out_size).
    const int64_t from = std::clamp<int64_t>(in - out_size + 1, 0, number), to = std::clamp<int64_t>(in + 1, from, number);
    return std::tuple(in, begin + from, begin + to);
  });
  return axis;
}

std::vector<PlaceRun> place_runs(const SparseAxis& rows, const SparseAxis& columns, int64_t in_width, int64_t out_width) {
  std::vector<PlaceRun> runs;
  // `count` places along an axis in equal parts.
  const auto cut = [&](PlaceRun run, int64_t count) {
    const int64_t parts = (count + kRun - 1) / kRun;
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t begin = count * part / parts, end = count * (part + 1) / parts;
      PlaceRun one = run;
      one.out += static_cast<int32_t>(begin * run.out_step);
      one.in += static_cast<int32_t>(begin * run.in_step);
      one.count = static_cast<int32_t>(end - begin);
      runs.push_back(one);
    }
  };
  for (const SparseAxis::Group& y : rows.groups) {
    for (const SparseAxis::Group& x : columns.groups) {
      PlaceRun run;
      run.x_from = static_cast<int16_t>(x.from);
      run.x_to = static_cast<int16_t>(x.to);
      run.y_from = static_cast<int16_t>(y.from);
      run.y_to = static_cast<int16_t>(y.to);
      const bool along_rows = x.count >= y.count;
      run.out_step = static_cast<int32_t>(along_rows ? x.step : y.step * out_width);
      run.in_step = static_cast<int32_t>(along_rows ? x.in_step : y.in_step * in_width);
      for (int64_t i = 0; i < (along_rows ? y.count : x.count); ++i) {
        const int64_t oy = y.first + (along_rows ? i * y.step : 0), ox = x.first + (along_rows ? 0 : i * x.step);
        const int64_t iy = y.in + (along_rows ? i * y.in_step : 0), ix = x.in + (along_rows ? 0 : i * x.in_step);
        run.out = static_cast<int32_t>(oy * out_width + ox);
        run.in = static_cast<int32_t>(iy * in_width + ix);
        cut(run, along_rows ? x.count : y.count);
      }
    }
  }
  return runs;
}

template <typename S>
SparseEntries<S>::SparseEntries(const SparseShape& s, const SparseAxis& rows, const SparseAxis& columns,
                                std::span<const uint64_t> mask, int64_t first, const Packing::Part* packed)
    : plane_(s.in_plane) {
  for (int64_t unit = 0; unit < s.units; ++unit) {
    for (int64_t x = 0; x < s.kernel_w; ++x) {
      for (int64_t y = 0; y < s.kernel_h; ++y) {
        starts_.push_back(static_cast<int32_t>(entries_.size()));
        const int64_t tap = rows.taps[y] * s.kernel_w + columns.taps[x];
        const int64_t place = rows.offsets[y] * s.in_width + columns.offsets[x];
        for (int64_t plane = 0; plane < planes_of<S>(s.channels); ++plane) {
          int32_t from[kPack<S>];
          bool any = false;
          for (int64_t i = 0; i < kPack<S>; ++i) {
            const int64_t channel = plane * kPack<S> + i, at = unit * s.unit_step + channel * s.channel_step + tap;
            const bool left = channel < s.channels && bit_at(mask, first + at);
            from[i] = !left ? -1 : static_cast<int32_t>(packed ? Packing::rank(*packed, mask.data() + first / 64, at) : at);
            any = any || left;
          }
          if (!any) continue;
          entries_.push_back({static_cast<int32_t>((plane * s.in_plane + place) * kCell<S>), {}});
          from_.insert(from_.end(), from, from + kPack<S>);
        }
      }
    }
  }
  starts_.push_back(static_cast<int32_t>(entries_.size()));
}

template <typename S>
void SparseEntries<S>::set_plane(int64_t places) {
  if (places == plane_) return;
  for (Entry<S>& e : entries_) e.offset = static_cast<int32_t>(e.offset / (plane_ * kCell<S>) * places * kCell<S>);
  plane_ = places;
}

template <typename S>
int64_t SparseEntries<S>::count(const SparseShape& s, int64_t taps, std::span<const uint64_t> mask, int64_t first) {
  int64_t number = 0;
  for (int64_t unit = 0; unit < s.units; ++unit) {
    for (int64_t channel = 0; channel < s.channels; channel += kPack<S>) {
      for (int64_t tap = 0; tap < taps; ++tap) {
        bool any = false;
        for (int64_t c = channel; c < std::min(s.channels, channel + kPack<S>); ++c) {
          any = any || bit_at(mask, first + unit * s.unit_step + c * s.channel_step + tap);
        }
        number += any;
      }
    }
  }
  return number;
}

template class SparseEntries<float>;
template class SparseEntries<double>;
template class SparseEntries<Bf16>;

}  // namespace lth
