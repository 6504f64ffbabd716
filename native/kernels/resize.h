// The two passes of antialiased resizing (data/resize.h), one table per instruction set, chosen at run time. Whole numbers
// throughout: all of them give the same bits.
#pragma once
#include <cstdint>

#include "kernels/kernels.h"

namespace lth {

// Weights are in units of 1/2^14; between the passes numbers have 6 bits behind the point.
constexpr int kWeightBits = 14, kLineBits = 6;

// Two rows of bytes and their weights: what one multiply-add of pairs takes.
struct RowPair {
  const uint8_t* rows[2];
  int16_t weights[2];
};

// A pixel's pair of weights four times over: one for each channel, and for what fills 128 bits.
struct PixelWeights {
  int16_t pairs[8];
};

struct ResizeKernels {
  Isa isa;
  // Pixels that a vector holds.
  int64_t lanes;
  // to[i] = sum over p < pairs and s < 2 of rows[p].weights[s] * rows[p].rows[s][i], i < n, rounded to kLineBits.
  void (*rows)(const RowPair* rows, int64_t pairs, int64_t n, int16_t* to);
  // Pixel x of the output, red in its lowest byte: channel c is the sum over p < pairs and s < 2 of
  // weight(x,p,s) * line[first[x] + 3 * (2 * p + s) + c], rounded and clamped to bytes. `width` is a multiple of 4 * lanes;
  // 8 elements are read from each pair's first one on. Four vectors make 4 * lanes pixels: pixel 4 * i + j of them is in lane
  // i of vector j, so that packing puts them in order; their weights of p are at
  // weights[((x / (4 * lanes) * 4 + j) * pairs + p) * lanes + i].
  void (*columns)(const int16_t* line, const int32_t* first, const PixelWeights* weights, int64_t pairs, int64_t width,
                  uint32_t* to);
  // The lowest byte of each pixel to red, the next one to green, the next one to blue.
  void (*planes)(const uint32_t* pixels, int64_t width, uint8_t* red, uint8_t* green, uint8_t* blue);
};

// Of an instruction set that the CPU has.
const ResizeKernels& resize_kernels(Isa isa);

}  // namespace lth
