// Slices of images as the kernels of layers keep them, random ones, and the tables of kernels that can run here.
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <limits>
#include <type_traits>
#include <vector>

#include "close.h"
#include "kernels/axis.h"
#include "kernels/layers.h"
#include "numbers.h"

namespace lth::test {

inline constexpr double kNaN = std::numeric_limits<double>::quiet_NaN(), kInfinity = std::numeric_limits<double>::infinity();

template <typename S>
S stored(double x) {
  if constexpr (std::is_same_v<S, Bf16>) {
    // To nearest, ties to even: by comparison with both neighbours, not by the kernels' trick.
    const float wide = static_cast<float>(x);
    const auto bits = std::bit_cast<uint32_t>(wide);
    if (wide != wide) return {0x7fc0};
    const Bf16 down = {static_cast<uint16_t>(bits >> 16)}, up = {static_cast<uint16_t>((bits >> 16) + 1)};
    if (std::isinf(wide)) return down;
    // Infinity is as far away as the power of two in whose place it is.
    const double next = std::isinf(value_of(up)) ? std::copysign(0x1p128, x) : value_of(up);
    const double below = std::fabs(static_cast<double>(wide) - value_of(down));
    const double above = std::fabs(next - static_cast<double>(wide));
    return below < above || (below == above && down.bits % 2 == 0) ? down : up;
  } else {
    return static_cast<S>(x);
  }
}

template <typename S>
std::vector<S> normals(Numbers& numbers, int64_t n, double mean = 0) {
  std::vector<S> out(static_cast<size_t>(n));
  for (S& x : out) x = stored<S>(mean + numbers.normal());
  return out;
}

// What outputs hold before they are written: elements that a kernel leaves out or adds to do not go unseen.
template <typename... T>
void junk(std::vector<T>&... outputs) {
  (std::fill(outputs.begin(), outputs.end(), stored<T>(kNaN)), ...);
}

// NaNs whose bits a rounding that knows of none carries into the sign, or drops so that infinity is left. Arithmetic makes
// no such NaN but hands on those that it is given, as weights of a file, say.
inline constexpr uint32_t kNaNs[] = {0x7fffffff, 0xffffffff, 0x7f800001};
template <typename T>
T nan_of(uint32_t bits) {
  if constexpr (std::is_same_v<T, Bf16>) {
    return {static_cast<uint16_t>(bits >> 16 | 1)};
  } else {
    return static_cast<T>(std::bit_cast<float>(bits));
  }
}

inline constexpr Isa kIsas[] = {Isa::kPortable, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16};

// f(kernels, rounding of the arithmetic, rounding of the storage, numbers) for every table that can run here.
template <typename F>
void each_table(F&& f) {
  Numbers numbers(18);
  f(layer_kernels(Isa::kPortable, static_cast<const double*>(nullptr)), 1e-15, 1e-15, numbers);
  for (Isa isa : kIsas) {
    if (!available(isa)) continue;
    if (isa != Isa::kAvx512Bf16) f(layer_kernels(isa, static_cast<const float*>(nullptr)), 1e-7, 1e-7, numbers);
    f(layer_kernels(isa, static_cast<const Bf16*>(nullptr)), 1e-7, 4e-3, numbers);
  }
}

// A slice of an image: some examples of kLane, the others' lanes hold 0, as does the second channel of a last plane
// that has but one.
template <typename S>
struct Image {
  int64_t channels, height, width, examples, places, planes, elements;
  std::vector<S> data;

  Image(int64_t c, int64_t h, int64_t w, int64_t n)
      : channels(c), height(h), width(w), examples(n), places(h * w), planes(planes_of<S>(c)), elements(planes * places * kCell<S>),
        data(elements) {}

  S& at(int64_t n, int64_t c, int64_t p) { return data[((c / kPack<S> * places + p) * kLane + n) * kPack<S> + c % kPack<S>]; }
  double value(int64_t n, int64_t c, int64_t p) const { return value_of(const_cast<Image*>(this)->at(n, c, p)); }
  double value(int64_t n, int64_t c, int64_t y, int64_t x) const {
    return y < 0 || x < 0 || y >= height || x >= width ? 0 : value(n, c, y * width + x);
  }

  // f(example, channel, place)
  template <typename F>
  void each(F&& f) const {
    for (int64_t n = 0; n < examples; ++n) {
      for (int64_t c = 0; c < channels; ++c) {
        for (int64_t p = 0; p < places; ++p) f(n, c, p);
      }
    }
  }

  void fill(Numbers& numbers, double mean = 0) {
    each([&](int64_t n, int64_t c, int64_t p) { at(n, c, p) = stored<S>(mean + numbers.normal()); });
  }

  // What no channel has is 0, and what no example has where it is a gradient.
  bool clean(bool gradient = true) const {
    for (int64_t n = 0; n < kLane; ++n) {
      for (int64_t c = 0; c < planes * kPack<S>; ++c) {
        for (int64_t p = 0; p < places; ++p) {
          if (((gradient && n >= examples) || c >= channels) && value(n, c, p) != 0) return false;
        }
      }
    }
    return true;
  }
};

template <typename S>
Image<S> image(Numbers& numbers, double mean = 0) {
  Image<S> x(1 + numbers.below(20), 1 + numbers.below(12), 1 + numbers.below(12), 1 + numbers.below(kLane));
  x.fill(numbers, mean);
  return x;
}

// What belongs to the channels of an image.
template <typename S>
std::vector<Real<S>> constants(Numbers& numbers, const Image<S>& x) {
  auto all = normals<Real<S>>(numbers, x.planes * kPack<S>);
  for (int64_t c = x.channels; c < x.planes * kPack<S>; ++c) all[c] = 0;
  return all;
}

// As networks may have them: padding is below the kernel, which may be larger than what it slides over.
inline Window window(Numbers& numbers, int64_t most_padding) {
  Window w;
  w.height = 1 + numbers.below(9);
  w.width = 1 + numbers.below(9);
  w.padding_h = numbers.below(most_padding + 1);
  w.padding_w = numbers.below(most_padding + 1);
  w.kernel_h = 1 + numbers.below(std::min<int64_t>(5, w.height + 2 * w.padding_h));
  w.kernel_w = 1 + numbers.below(std::min<int64_t>(5, w.width + 2 * w.padding_w));
  w.padding_h = std::min(w.padding_h, w.kernel_h - 1);
  w.padding_w = std::min(w.padding_w, w.kernel_w - 1);
  w.stride_h = 1 + numbers.below(3);
  w.stride_w = 1 + numbers.below(3);
  w.out_height = (w.height + 2 * w.padding_h - w.kernel_h) / w.stride_h + 1;
  w.out_width = (w.width + 2 * w.padding_w - w.kernel_w) / w.stride_w + 1;
  return w;
}

// ResNet's first convolution, of a smaller image.
inline constexpr Window kStem = {10, 9, 5, 5, 7, 7, 2, 2, 3, 3};

// weight(unit, channel, tap) as Convolve reads them.
template <typename S, typename F>
std::vector<S> packed(int64_t units, int64_t channels, int64_t taps, F&& weight) {
  const int64_t planes = planes_of<S>(channels);
  std::vector<S> to(padded(units, kTile) * taps * planes * kPack<S>);
  for (int64_t u = 0; u < units; ++u) {
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t t = 0; t < taps; ++t) {
        to[(((u / kTile * taps + t) * planes + c / kPack<S>) * kTile + u % kTile) * kPack<S> + c % kPack<S>] = weight(u, c, t);
      }
    }
  }
  return to;
}

template <typename S>
Convolve<S> convolution(const Image<S>& in, const AxisPlan& rows, const AxisPlan& columns, const Window& w, const std::vector<S>& weights,
                        const Real<S>* bias, Image<S>& out) {
  return {in.data.data(), in.planes, in.places, in.width, rows.axis(), columns.axis(), w.kernel_w, w.kernel_h * w.kernel_w, weights.data(),
          bias, out.data.data(), out.planes, out.places, out.width};
}

}  // namespace lth::test
