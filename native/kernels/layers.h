// The kernels of networks with convolutions, one table per instruction set and storage type.
//
// A slice of the batch is kLane examples, and they are innermost: an image is (planes, places, kLane, kPack), where a
// place is a pixel and a plane holds kPack channels (two of bf16, whose products come in pairs, else one). One channel's
// place of a slice is one vector, or half of one with its neighbour's: no kernel shuffles lanes or has a border inside a
// vector, and a sparse weight can skip its channel. (kLane, kPack) of one place are a cell: one register of AVX-512.
//
// A last plane's second channel that no network has is 0 where all values are finite. Lanes that no example fills hold
// anything finite in values and 0 in gradients.
//
// Storage may be narrower than the arithmetic: bf16 is read into float and rounded to nearest even when it is written.
#pragma once
#include <cstdint>

#include "kernels/kernels.h"

namespace lth {

// The upper half of a float (8 bits of exponent, 7 of fraction).
struct Bf16 {
  uint16_t bits;
};

// What the arithmetic on a storage type is made in.
template <typename S>
struct Arithmetic {
  using type = S;
};
template <>
struct Arithmetic<Bf16> {
  using type = float;
};
template <typename S>
using Real = typename Arithmetic<S>::type;

template <typename S>
constexpr int64_t kPack = 1;
template <>
constexpr int64_t kPack<Bf16> = 2;

template <typename S>
constexpr int64_t kCell = kLane * kPack<S>;

template <typename S>
static constexpr int64_t planes_of(int64_t channels) {
  return (channels + kPack<S> - 1) / kPack<S>;
}

// Height and width of what a kernel slides over, of what comes out, and how it slides.
struct Window {
  int64_t height, width, out_height, out_width;
  int64_t kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w;
};

// ---- Convolutions

// Units of a tile: what one pass over the input makes.
constexpr int64_t kTile = 8;

// Along one axis: which places of the input an output place reads, and with which of the kernel's taps (axis.h).
struct Axis {
  struct Tap {
    int32_t tap;
    int32_t in;          // the place that the first output place reads; the second's is `step` behind it
    bool first, second;  // which of them read it: the others' place is outside
  };
  struct Pair {
    int32_t first, second;  // output places; second: -1 where there is none
    int32_t from, to;       // their taps
  };
  const Tap* taps;
  const Pair* pairs;
  int64_t size;  // pairs
  int64_t step;
};

// out(unit, place) = bias(unit) + sum over taps and channels of weights * in(channel, place that the tap reads)
template <typename S>
struct Convolve {
  const S* in;
  int64_t in_planes, in_plane, in_width;  // in_plane: places of a plane
  Axis rows, columns;                     // rows one by one, columns in pairs
  int64_t kernel_w, taps;
  const S* weights;     // (units / kTile, taps, in_planes, kTile, kPack), 0 behind the last unit and channel
  const Real<S>* bias;  // (units rounded up to kTile), or null
  S* out;
  int64_t out_planes, out_plane, out_width;
};

// ---- The same of 3 x 3 taps with stride 1, by Winograd's F(2 x 2, 3 x 3) (winograd.inl)

// Where a tile of the input, 4 x 4 places that 2 x 2 of the output read, is transformed to.
constexpr int64_t kWinogradPlaces = 16;

// Tiles [first, first + count) of a row of them, transformed to rows [from, to) of the 4 x 4. What is called a plane here is
// any cell of a place; all steps are in elements.
template <typename S>
struct WinogradTiles {
  const S* in;
  int64_t planes, height, width, padding_h, padding_w;
  int64_t in_plane, in_place;
  int64_t row, first, count;
  int64_t from, to;
  S* out;
  int64_t place, tile, plane;
};

// out(unit, place) = bias(unit) + sum over taps and channels of weights * in(channel, place that the tap reads), of the same
// tiles, transformed; cells of a tile's planes lie behind one another.
template <typename S>
struct WinogradOutputs {
  const S* in;
  int64_t in_planes, place, tile;
  const S* weights;     // (units / kTile, 16, in_planes, kTile, kPack), as `winograd_weights` makes them
  const Real<S>* bias;  // (units rounded up to kTile), or null
  int64_t row, first, count;
  S* out;
  int64_t out_planes, out_height, out_width;
};

// The gradient of some weights: tile_units units and tile_channels channels.
static constexpr int64_t tile_units(int64_t units) { return padded(units, 2 * kLane) == padded(units) ? 2 * kLane : kLane; }
static constexpr int64_t tile_channels(int64_t units, int64_t channels) {
  return tile_units(units) == kLane && channels > 8 ? 16 : 8;
}

// dw(tap, channel, unit) = sum over the places of [y0, y1) and the examples of x * dy
template <typename S>
struct WeightGradient {
  const Window* window;
  int64_t y0, y1;  // rows of the output
  // (places, kLane / kPack, channels, kPack), from these rows on; channels in whole tiles, 0 where there are none.
  const S *x, *dy;
  int64_t x_row, dy_row, x_channels, dy_channels;
  int64_t unit, channel, units, channels;  // the tile
  bool add;                                // to what is there
  Real<S>* out;                            // (taps, channels, units) of the tile
};

template <typename S>
struct LayerKernels {
  using R = Real<S>;
  Isa isa;
  bool in_pairs;  // there are registers enough for Convolve's columns in pairs
  void (*convolve)(const Convolve<S>&);
  void (*winograd_inputs)(const WinogradTiles<S>&);
  // 2 x 2 places of dY become what the input's are multiplied with: the transposed way of the output. No padding.
  void (*winograd_gradients)(const WinogradTiles<S>&);
  void (*winograd_convolve)(const WinogradOutputs<S>&);
  void (*winograd_weights)(const R* taps, int64_t n, int64_t place, S* out);  // (9, n) -> 16 places, `place` apart, of n
  void (*winograd_taps)(const R* sums, int64_t n, R* taps);  // (16, n) -> (9, n): the transposed way of the weights
  void (*weight_gradient)(const WeightGradient<S>&);
  // Places [first, first + count) as WeightGradient reads them: (count, kLane / kPack, channels, kPack).
  void (*turn)(const S* in, int64_t planes, int64_t places, int64_t first, int64_t count, int64_t channels, S* out);

  // What belongs to channels below is (planes * kPack) long. `examples` lanes count.

  // shift = a value of the channel; sum and square: of its values' distances from there. Sums of 64 terms are made in
  // R, those of sums in double.
  void (*moments)(const S* x, int64_t planes, int64_t places, int64_t examples, double* shift, double* sum, double* square);
  // out = (x - mean) * scale + bias [+ other] [, max(out, 0): NaN stays NaN]
  void (*normalise)(const S* x, const S* other, int64_t planes, int64_t places, const R* mean, const R* scale, const R* bias,
                    bool relu, S* out);
  // g = d [+ other], 0 where y <= 0 (y null: everywhere d); sum of g, product: of g * (x - mean), as `moments` sums.
  // g may be d or other, and is not written where it is d alone.
  void (*gate)(const S* d, const S* other, const S* y, const S* x, int64_t planes, int64_t places, const R* mean, S* g,
               double* sum, double* product);
  // dx = scale * (g - constant - (x - mean) * slope), 0 behind the examples; dx may be g.
  void (*normalise_backward)(const S* g, const S* x, int64_t planes, int64_t places, int64_t examples, const R* mean,
                             const R* scale, const R* constant, const R* slope, S* dx);
  // Sums over places and examples, in double.
  void (*channel_sums)(const S* x, int64_t planes, int64_t places, double* sum);

  // Of n elements, whole cells.
  void (*relu)(const S* in, S* out, int64_t n);                          // max(in, 0); NaN stays NaN
  void (*relu_backward)(const S* y, const S* dy, S* dx, int64_t n);      // y <= 0 ? 0 : dy
  void (*add)(const S* a, const S* b, S* out, int64_t n);
  void (*drop)(const S* in, const uint8_t* keep, R scale, S* out, int64_t n);  // in * (keep ? scale : 0)

  // The largest of each window; NaN is larger than anything.
  void (*max_pool)(const Window& window, int64_t planes, const S* in, S* out);
  // dx = dy at the first largest element of each window, summed; 0 elsewhere.
  void (*max_pool_backward)(const Window& window, int64_t planes, const S* in, const S* out, const S* dy, S* dx);
  // The mean of each window, padding as 0.
  void (*average_pool)(const Window& window, int64_t planes, const S* in, S* out);
  void (*average_pool_backward)(const Window& window, int64_t planes, const S* dy, S* dx);

  // Vectors are (features, row) of R, a feature's kLane examples at row * feature.
  void (*place_sums)(const S* in, int64_t channels, int64_t places, R scale, R* out, int64_t row);  // sums * scale
  void (*spread)(const R* in, int64_t row, int64_t channels, int64_t places, R scale, S* out);  // in * scale at each place
  void (*flatten)(const S* in, int64_t channels, int64_t places, R* out, int64_t row);  // (channels * places, row)
  void (*unflatten)(const R* in, int64_t row, int64_t channels, int64_t places, S* out);

  void (*narrow)(const R* in, S* out, int64_t n);
};

const LayerKernels<float>& layer_kernels(Isa isa, const float*);
const LayerKernels<Bf16>& layer_kernels(Isa isa, const Bf16*);
// Portable code only, whatever `isa`: for the oracle tests.
const LayerKernels<double>& layer_kernels(Isa isa, const double*);

}  // namespace lth
