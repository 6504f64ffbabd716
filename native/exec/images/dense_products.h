// How a convolution's dense products are made, and what they cost: a function of its shape and storage type alone, because
// bits depend on it.
#pragma once
#include <cstdint>

#include "kernels/axis.h"
#include "kernels/layers.h"

namespace lth {

struct DenseProduct {
  bool winograd;   // or place by place
  double vectors;  // of products for a slice (kernels/tuning.h)
};

struct DenseProducts {
  DenseProduct forward, backward, gradient;
};

// What a tile's transformations cost beside the products, in these: one channel of the input and one unit of the output.
// Measured on an AMD EPYC with AVX512_BF16 (bench: kernels). A machine's table does not have them: whether a product is made
// by Winograd's algorithm is not what it is about.
constexpr double kWinogradChannel = 75, kWinogradUnit = 125;

template <typename S>
DenseProducts dense_products(const Window& w, int64_t channels, int64_t units) {
  const auto seen = static_cast<double>(taps_seen(w.height, w.out_height, w.kernel_h, w.stride_h, w.padding_h) *
                                        taps_seen(w.width, w.out_width, w.kernel_w, w.stride_w, w.padding_w));
  const bool can = w.kernel_h == 3 && w.kernel_w == 3 && w.stride_h == 1 && w.stride_w == 1 && w.padding_h <= 2 && w.padding_w <= 2;
  const auto of = [&](int64_t from, int64_t to, int64_t height, int64_t width) {
    const auto products = static_cast<double>(to * planes_of<S>(from));
    const auto tiles = static_cast<double>((height + 1) / 2 * ((width + 1) / 2));
    const double transforms = kWinogradChannel * static_cast<double>(from) + kWinogradUnit * static_cast<double>(to);
    const double direct = products * seen, winograd = tiles * (kWinogradPlaces * products + transforms);
    return DenseProduct{can && winograd < direct, can && winograd < direct ? winograd : direct};
  };
  const auto gradient = [&] {
    const auto products = static_cast<double>(units * channels) / static_cast<double>(kPack<S>);
    const auto tiles = static_cast<double>((w.out_height + 1) / 2 * ((w.out_width + 1) / 2));
    const double transforms = kWinogradChannel * static_cast<double>(channels + units);
    const double direct = products * seen, winograd = tiles * (kWinogradPlaces * products + transforms);
    return DenseProduct{can && winograd < direct, can && winograd < direct ? winograd : direct};
  };
  return {of(channels, units, w.out_height, w.out_width), of(units, channels, w.height, w.width), gradient()};
}

}  // namespace lth
