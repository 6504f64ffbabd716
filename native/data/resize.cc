#include "data/resize.h"

#include <algorithm>
#include <cmath>
#include <string>

#if defined(__SSE2__)
#include <emmintrin.h>

#include <cstring>
#endif

#include "core/error.h"

namespace lth {
namespace {

constexpr int kWeightBits = 14, kLineBits = 6;

double weight_of(Filter filter, double x) {
  x = std::fabs(x);
  if (filter == Filter::kBilinear) return x < 1 ? 1 - x : 0;
  constexpr double a = -0.5;  // Keys 1981
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

// The row `y` of the output in the input's width: n elements. `from` is the first of its input rows.
void mix_rows(const uint8_t* from, int64_t stride, const int16_t* weights, int64_t taps, int64_t n, int16_t* to) {
  constexpr int kShift = kWeightBits - kLineBits;
  int64_t i = 0;
#if defined(__SSE2__)
  const __m128i zero = _mm_setzero_si128(), half = _mm_set1_epi32(1 << (kShift - 1));
  for (; i + 16 <= n; i += 16) {
    __m128i sum[4] = {half, half, half, half};
    for (int64_t k = 0; k < taps; k += 2) {
      int32_t pair;
      std::memcpy(&pair, weights + k, sizeof pair);
      if (pair == 0) continue;  // these rows may be none of the picture's, as the second of two with weight 0
      const __m128i w = _mm_set1_epi32(pair);
      const auto* row = reinterpret_cast<const __m128i*>(from + k * stride + i);
      const auto* next = weights[k + 1] == 0 ? row : reinterpret_cast<const __m128i*>(from + (k + 1) * stride + i);
      const __m128i a = _mm_loadu_si128(row), b = _mm_loadu_si128(next);
      const __m128i low = _mm_unpacklo_epi8(a, b), high = _mm_unpackhi_epi8(a, b);
      sum[0] = _mm_add_epi32(sum[0], _mm_madd_epi16(_mm_unpacklo_epi8(low, zero), w));
      sum[1] = _mm_add_epi32(sum[1], _mm_madd_epi16(_mm_unpackhi_epi8(low, zero), w));
      sum[2] = _mm_add_epi32(sum[2], _mm_madd_epi16(_mm_unpacklo_epi8(high, zero), w));
      sum[3] = _mm_add_epi32(sum[3], _mm_madd_epi16(_mm_unpackhi_epi8(high, zero), w));
    }
    for (__m128i& one : sum) one = _mm_srai_epi32(one, kShift);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), _mm_packs_epi32(sum[0], sum[1]));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i + 8), _mm_packs_epi32(sum[2], sum[3]));
  }
#endif
  for (; i < n; ++i) {
    int32_t sum = 1 << (kShift - 1);
    for (int64_t k = 0; k < taps; ++k) {
      if (weights[k] != 0) sum += weights[k] * from[k * stride + i];
    }
    to[i] = static_cast<int16_t>(sum >> kShift);
  }
}

// Sums of one pixel's red, green and blue in units of 1/2^20, and half a level. Weight k is spread[8 * (k / 2) + k % 2];
// `from` has 8 elements behind the last pixel that counts.
constexpr int kShift = kWeightBits + kLineBits;
#if defined(__SSE2__)
__m128i mix_columns(const int16_t* from, const int16_t* spread, int64_t taps) {
  __m128i sum = _mm_set1_epi32(1 << (kShift - 1));
  for (int64_t k = 0; k < taps; k += 2) {
    // r g b R G B . . -> r R g G b B . .
    const __m128i both = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 3 * k));
    const __m128i pairs = _mm_unpacklo_epi16(both, _mm_srli_si128(both, 6));
    sum = _mm_add_epi32(sum, _mm_madd_epi16(pairs, _mm_loadu_si128(reinterpret_cast<const __m128i*>(spread + 4 * k))));
  }
  return _mm_srai_epi32(sum, kShift);
}
#endif

// A row of pixels, red in the lowest byte of each. first[x] counts from the beginning of `line`.
void mix_line(const int16_t* line, const int32_t* first, const int16_t* spread, int64_t taps, int64_t width, uint32_t* to) {
  int64_t x = 0;
#if defined(__SSE2__)
  const auto at = [&](int64_t i) { return mix_columns(line + 3 * first[i], spread + 4 * taps * i, taps); };
  for (; x + 4 <= width; x += 4) {
    const __m128i low = _mm_packs_epi32(at(x), at(x + 1)), high = _mm_packs_epi32(at(x + 2), at(x + 3));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + x), _mm_packus_epi16(low, high));
  }
#endif
  for (; x < width; ++x) {
    to[x] = 0;
    for (int c = 0; c < 3; ++c) {
      int32_t sum = 1 << (kShift - 1);
      for (int64_t k = 0; k < taps; ++k) sum += spread[4 * taps * x + 8 * (k / 2) + k % 2] * line[3 * (first[x] + k) + c];
      to[x] |= static_cast<uint32_t>(std::clamp(sum >> kShift, 0, 255)) << 8 * c;
    }
  }
}

void write_line(const uint32_t* pixels, int64_t width, const PixelLayout& to, int64_t y) {
  uint8_t* row = to.base + y * to.row;
  for (int c = 0; c < 3; ++c, row += to.channel) {
    if (to.column == 1) {
      for (int64_t x = 0; x < width; ++x) row[x] = static_cast<uint8_t>(pixels[x] >> 8 * c);
    } else {
      for (int64_t x = 0; x < width; ++x) row[x * to.column] = static_cast<uint8_t>(pixels[x] >> 8 * c);
    }
  }
}

}  // namespace

void Resizer::plan(Axis& axis, int64_t size, double from, double length, int64_t outputs, Filter filter) {
  const double scale = length / static_cast<double>(outputs), wide = std::max(scale, 1.0);
  const double support = (filter == Filter::kBilinear ? 1.0 : 2.0) * wide;
  axis.taps = (static_cast<int64_t>(std::ceil(support)) * 2 + 2) & ~int64_t{1};
  axis.first.resize(static_cast<size_t>(outputs));
  axis.weights.assign(static_cast<size_t>(outputs * axis.taps), 0);
  std::vector<double> exact(static_cast<size_t>(axis.taps));
  const double narrow = 1 / wide;
  int64_t most = 0;
  for (int64_t i = 0; i < outputs; ++i) {
    const double centre = from + (static_cast<double>(i) + 0.5) * scale;
    const int64_t first = std::clamp<int64_t>(static_cast<int64_t>(std::floor(centre - support + 0.5)), 0, size - 1);
    const int64_t last = std::clamp<int64_t>(static_cast<int64_t>(std::floor(centre + support + 0.5)), first + 1, size);
    double sum = 0;
    for (int64_t k = 0; k < last - first; ++k) {
      exact[k] = weight_of(filter, (static_cast<double>(first + k) - centre + 0.5) * narrow);
      sum += exact[k];
    }
    // The running sum is rounded, so that any number of weights makes up the whole.
    const double whole = (1 << kWeightBits) / sum;
    int16_t* weights = axis.weights.data() + i * axis.taps;
    double running = 0;
    int32_t given = 0;
    for (int64_t k = 0; k < last - first; ++k) {
      running += exact[k] * whole;
      constexpr int32_t kBelow = 1 << 16;  // of a bicubic sum, which may be negative: conversion rounds towards zero
      const int32_t up_to = static_cast<int32_t>(running + (kBelow + 0.5)) - kBelow;
      weights[k] = static_cast<int16_t>(up_to - given);
      given = up_to;
    }
    axis.first[i] = static_cast<int32_t>(first);
    most = std::max(most, last - first);
  }
  // Weights lie together as closely as they can: fewer products.
  const int64_t taps = (most + 1) & ~int64_t{1};
  for (int64_t i = 0; i < outputs && taps < axis.taps; ++i) {
    std::copy_n(axis.weights.begin() + i * axis.taps, taps, axis.weights.begin() + i * taps);
  }
  axis.taps = taps;
}

void Resizer::resize(const Patch& from, const CropBox& box, Filter filter, int64_t height, int64_t width, const PixelLayout& to) {
  if (!(box.height > 0 && box.width > 0 && box.top >= 0 && box.left >= 0 &&
        box.top + box.height <= static_cast<double>(from.height) && box.left + box.width <= static_cast<double>(from.width)) ||
      height < 1 || width < 1) {
    throw Error("invalid-argument", "[resize] a box of " + std::to_string(box.height) + " x " + std::to_string(box.width) +
                                        " at (" + std::to_string(box.top) + "," + std::to_string(box.left) +
                                        ") does not fit a picture of " + std::to_string(from.height) + " x " +
                                        std::to_string(from.width));
  }
  plan(rows_, from.height, box.top, box.height, height, filter);
  plan(columns_, from.width, box.left, box.width, width, filter);
  const int64_t left = *std::min_element(columns_.first.begin(), columns_.first.end());
  const int64_t right = std::min(*std::max_element(columns_.first.begin(), columns_.first.end()) + columns_.taps, from.width);
  const int64_t n = (right - left) * 3;
  // Behind the last pixel of a line a second tap of weight 0 may be read, and the end of a vector.
  line_.assign(static_cast<size_t>(n + 3 * columns_.taps + 8), 0);
  pixels_.resize(static_cast<size_t>(width));
  // A mirrored line is made backwards and written forwards.
  PixelLayout out = to;
  if (to.column < 0) {
    out.base += (width - 1) * to.column;
    out.column = -to.column;
  }
  first_.resize(static_cast<size_t>(width));
  spread_.resize(static_cast<size_t>(4 * columns_.taps * width));
  for (int64_t x = 0; x < width; ++x) {
    const int64_t i = to.column < 0 ? width - 1 - x : x;
    first_[x] = static_cast<int32_t>(columns_.first[i] - left);
    for (int64_t k = 0; k < 4 * columns_.taps; ++k)
      spread_[4 * columns_.taps * x + k] = columns_.weights[i * columns_.taps + k / 8 * 2 + k % 2];
  }
  for (int64_t y = 0; y < height; ++y) {
    mix_rows(from.pixels + rows_.first[y] * from.stride + left * 3, from.stride, rows_.weights.data() + y * rows_.taps,
             rows_.taps, n, line_.data());
    mix_line(line_.data(), first_.data(), spread_.data(), columns_.taps, width, pixels_.data());
    write_line(pixels_.data(), width, out, y);
  }
}

}  // namespace lth
