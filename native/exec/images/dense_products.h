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
  // Of a tile for each 2 x 2 places of an image.
  const auto cheaper = [&](double products, int64_t height, int64_t width, double transforms) {
    const auto tiles = static_cast<double>((height + 1) / 2 * ((width + 1) / 2));
    const double direct = products * seen, winograd = tiles * (kWinogradPlaces * products + transforms);
    return can && winograd < direct ? DenseProduct{true, winograd} : DenseProduct{false, direct};
  };
  const auto c = static_cast<double>(channels), u = static_cast<double>(units);
  return {cheaper(u * planes_of<S>(channels), w.out_height, w.out_width, kWinogradChannel * c + kWinogradUnit * u),
          cheaper(c * planes_of<S>(units), w.height, w.width, kWinogradChannel * u + kWinogradUnit * c),
          // Both images are inputs; what is transformed back is the sums of a whole slice.
          cheaper(u * c / kPack<S>, w.out_height, w.out_width, kWinogradChannel * (c + u))};
}

}  // namespace lth
