// How the kernels of this folder are launched: grids by shapes alone, for they decide the order of sums.
#pragma once
#include <algorithm>
#include <cstdint>
#include <optional>

#include "cuda/device/parameters.h"

namespace lth::device {

struct Grid {
  unsigned x = 1, y = 1, z = 1;
};

// About one block for each of a large GPU's multiprocessors; more partial sums take longer to add up than they save.
constexpr int64_t kBlocks = 132;

// Of a convolution of 16 channels, half as many of 32.
constexpr int64_t kConvolveBlocks = 4 * kBlocks;

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Of kernels that walk over places, of blocks with `most` vectors of channels (a multiple of kVector), about `blocks` of them.
inline Grid grid_of_places(int64_t places, int64_t channels, int64_t most, int64_t blocks) {
  const int64_t all = channels / kVector, vectors = std::min(all, most), rows = kThreads / vectors;
  const int64_t y = ceil_div(all, vectors);
  const int64_t x = std::clamp<int64_t>(ceil_div(places, rows * 2), 1, std::max<int64_t>(1, blocks / y));
  return {static_cast<unsigned>(x), static_cast<unsigned>(y), 1};
}
// Vectors of a place that a block of those that sum has. Two are the 32 bytes that caches give at a time, and many blocks leave
// few sums to add up in the end. Memory gives and takes 64 and 128: what is larger than caches wants them in one block.
inline int summed_vectors(int64_t places, int64_t channels) {
  constexpr int64_t kCached = int64_t{16} << 20;  // values
  if (places * channels <= kCached) return 2;
  for (int vectors : {8, 4}) {
    if (channels % (vectors * kVector) == 0) return vectors;
  }
  return 2;
}
// Of those that sum, and of those that pass over the images once.
inline Grid grid_of_sums(int64_t places, int64_t channels, int vectors) {
  return grid_of_places(places, channels, vectors, vectors == 2 ? kBlocks : 2 * kBlocks);
}
inline Grid grid_of_pass(int64_t places, int64_t channels) { return grid_of_places(places, channels, kPassed, 8 * kBlocks); }
// Counters, and floats of `partial`, of any number of places of at most so many channels.
inline int64_t counters(int64_t channels) { return ceil_div(channels / kVector, 2); }
inline int64_t partial_sums(int64_t channels) {
  int64_t most = kConvolveBlocks * 2 * 16;
  for (int vectors : {2, 4, 8}) {
    const int64_t blocks = std::max(2 * kBlocks, ceil_div(channels / kVector, vectors));
    most = std::max(most, blocks * vectors * kSums);
  }
  return most;
}

inline unsigned blocks_for(int64_t threads) { return static_cast<unsigned>(std::max<int64_t>(1, ceil_div(threads, kThreads))); }

// Rows of an output that a band has: at least one, as many as fit into `space`, and no more than so many places.
template <typename Bytes>
int band_of(int out_height, int out_width, int64_t space, const Bytes& bytes) {
  constexpr int64_t kMostPlaces = 256;
  int band = 1;
  while (band < out_height && bytes(band + 1) <= space && int64_t{band + 1} * out_width <= kMostPlaces) ++band;
  // All bands about as high.
  return static_cast<int>(ceil_div(out_height, ceil_div(out_height, band)));
}

struct ConvolvePlan {
  int tiles, taps;  // TILES and TAPS of the kernel
  Grid grid;
};

// Completes `p`, of which the pointers are not looked at; nothing where this kernel is not for it. The stride is 1.
inline std::optional<ConvolvePlan> plan_convolve(Convolve& p, int64_t kernel_h, int64_t kernel_w) {
  if (p.channels > kConvolveChannels || p.units > kConvolveChannels || kernel_h != kernel_w || (kernel_h != 1 && kernel_h != 3)) return std::nullopt;
  const int tiles = std::max(p.channels, p.units) > 16 ? 2 : 1;
  p.band_width = p.out_width - 1 + static_cast<int>(kernel_w);
  const auto bytes = [&](int band) {
    return int64_t{band - 1 + kernel_h} * p.band_width * (16 * tiles + kPadding) * static_cast<int64_t>(sizeof(Bf16));
  };
  if (bytes(1) > kConvolveSpace) return std::nullopt;
  p.band = band_of(p.out_height, p.out_width, kConvolveSpace, bytes);
  p.bands = static_cast<int>(ceil_div(p.out_height, p.band));
  p.band_height = p.band - 1 + static_cast<int>(kernel_h);
  const int64_t blocks = std::min<int64_t>(kConvolveBlocks / tiles, int64_t{p.examples} * p.bands);
  return ConvolvePlan{tiles, static_cast<int>(kernel_h * kernel_w), {static_cast<unsigned>(blocks), 1, 1}};
}

struct WeightGradientPlan {
  int unit_tiles, channel_tiles, taps;  // KT, CT and TAPS of the kernel
  Grid grid;
  int64_t size;  // of the weights: floats that a block of the grid's x writes
  int64_t most;  // of the grid's x, whatever the batch
};

// Completes `p`, of which the pointers are not looked at; nothing where the tiles do not fit into shared memory.
inline std::optional<WeightGradientPlan> plan_weight_gradient(WeightGradient& p) {
  WeightGradientPlan plan;
  plan.unit_tiles = p.units > 16 ? 2 : 1;
  plan.channel_tiles = p.channels > 16 ? 2 : 1;
  const int taps = p.kernel_h * p.kernel_w;
  plan.taps = taps == 1 ? 1 : kTaps;
  p.band_width = (p.out_width - 1) * p.stride_w + p.kernel_w;
  const auto height_of = [&](int band) { return (band - 1) * p.stride_h + p.kernel_h; };
  const auto bytes = [&](int band) {
    const int64_t x = int64_t{height_of(band)} * p.band_width * (16 * plan.channel_tiles + kPadding);
    const int64_t dy = ceil_div(int64_t{band} * p.out_width, 16) * 16 * (16 * plan.unit_tiles + kPadding);
    return (x + dy) * static_cast<int64_t>(sizeof(Bf16));
  };
  if (bytes(1) > kSpace) return std::nullopt;
  p.band = band_of(p.out_height, p.out_width, kSpace, bytes);
  p.bands = static_cast<int>(ceil_div(p.out_height, p.band));
  p.band_height = height_of(p.band);
  plan.size = int64_t{p.units} * p.channels * taps;
  const int64_t tiles = ceil_div(p.units, 16 * plan.unit_tiles) * ceil_div(p.channels, 16 * plan.channel_tiles);
  const int64_t chunks = ceil_div(taps, plan.taps);
  // Two blocks a multiprocessor where what they write is little.
  const int64_t blocks = plan.size <= 4096 ? 2 * kBlocks : kBlocks;
  plan.most = std::max<int64_t>(1, blocks / (tiles * chunks));
  const int64_t x = std::min(plan.most, int64_t{p.examples} * p.bands);
  plan.grid = {static_cast<unsigned>(x), static_cast<unsigned>(tiles), static_cast<unsigned>(chunks)};
  return plan;
}

}  // namespace lth::device
