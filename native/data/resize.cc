#include "data/resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "core/error.h"

namespace lth {
namespace {

double weight_of(Filter filter, double x) {
  x = std::fabs(x);
  if (filter == Filter::kBilinear) return x < 1 ? 1 - x : 0;
  constexpr double a = -0.5;  // Keys 1981
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

// Rows of (width,3) bytes out of pixels.
void interleave(const uint32_t* pixels, int64_t width, uint8_t* to) {
  // Each pixel's fourth byte is written over by the next one.
  for (int64_t x = 0; x + 1 < width; ++x) std::memcpy(to + 3 * x, pixels + x, 4);
  std::memcpy(to + 3 * (width - 1), pixels + width - 1, 3);
}

}  // namespace

void Resizer::plan(Axis& axis, int64_t size, double from, double length, int64_t outputs, Filter filter) {
  const double scale = length / static_cast<double>(outputs), wide = std::max(scale, 1.0);
  const double support = filter_reach(filter) * wide;
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
  // A mirrored line is made backwards and written forwards.
  PixelLayout out = to;
  if (to.column < 0) {
    out.base += (width - 1) * to.column;
    out.column = -to.column;
  }
  spread(width, left, to.column < 0);
  for (int64_t y = 0; y < height; ++y) {
    // The second row of the last pair may be none of the picture's: it has weight 0, and the first one stands for it.
    const int16_t* weights = rows_.weights.data() + y * rows_.taps;
    pairs_.clear();
    for (int64_t k = 0; k < rows_.taps; k += 2) {
      if (weights[k] == 0 && weights[k + 1] == 0) continue;
      const uint8_t* row = from.pixels + (rows_.first[y] + k) * from.stride + left * 3;
      pairs_.push_back({{row, weights[k + 1] == 0 ? row : row + from.stride}, {weights[k], weights[k + 1]}});
    }
    kernels_.rows(pairs_.data(), static_cast<int64_t>(pairs_.size()), n, line_.data());
    kernels_.columns(line_.data(), first_.data(), spread_.data(), columns_.taps / 2, static_cast<int64_t>(pixels_.size()),
                     pixels_.data());
    write(width, out, y);
  }
}

void Resizer::spread(int64_t width, int64_t left, bool mirrored) {
  const int64_t lanes = kernels_.lanes, group = 4 * lanes, pairs = columns_.taps / 2;
  const int64_t padded = (width + group - 1) / group * group;
  pixels_.resize(static_cast<size_t>(padded));
  first_.assign(static_cast<size_t>(padded), 0);
  spread_.assign(static_cast<size_t>(padded * pairs), {});
  for (int64_t x = 0; x < width; ++x) {
    const int64_t i = mirrored ? width - 1 - x : x, at = x % group;
    first_[x] = static_cast<int32_t>(3 * (columns_.first[i] - left));
    for (int64_t p = 0; p < pairs; ++p) {
      PixelWeights& to = spread_[((x / group * 4 + at % 4) * pairs + p) * lanes + at / 4];
      for (int k = 0; k < 8; ++k) to.pairs[k] = columns_.weights[i * columns_.taps + 2 * p + k % 2];
    }
  }
}

void Resizer::write(int64_t width, const PixelLayout& to, int64_t y) const {
  uint8_t* row = to.base + y * to.row;
  if (to.column == 1) return kernels_.planes(pixels_.data(), width, row, row + to.channel, row + 2 * to.channel);
  if (to.column == 3 && to.channel == 1) return interleave(pixels_.data(), width, row);
  for (int c = 0; c < 3; ++c, row += to.channel) {
    for (int64_t x = 0; x < width; ++x) row[x * to.column] = static_cast<uint8_t>(pixels_[x] >> 8 * c);
  }
}

}  // namespace lth
