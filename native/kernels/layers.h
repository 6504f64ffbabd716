// The kernels of the layers around convolutions, one table per instruction set and storage type.
//
// Images are (rows, C): a row is one place of one example, the channel is innermost (NHWC). A kernel sees a slice of
// the batch as one flat array of `total` = rows * C elements, and what belongs to a channel as an array of `period`
// elements that repeats the channels: element i of the slice takes element i % period. `period` is a multiple of C and
// of kLane, so that whole vectors can be read whatever C is.
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

struct Window {
  int64_t height, width, channels;       // of the input
  int64_t out_height, out_width;
  int64_t kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w;
};

template <typename S>
struct LayerKernels {
  using R = Real<S>;
  // shift[p] = x[p]; sum[p] = sum over i = p, p + period, ... of x[i] - shift[p], square[p] of its square. Sums of 64
  // terms are made in R, those of sums in double. Positions at and behind `total` get zeros.
  void (*moments)(const S* x, int64_t total, int64_t period, double* shift, double* sum, double* square);
  // out = (x - mean) * scale + bias [+ other] [, max(out, 0): NaN stays NaN]
  void (*normalise)(const S* x, const S* other, int64_t total, int64_t period, const R* mean, const R* scale, const R* bias,
                    bool relu, S* out);
  // g = d [+ other], 0 where y <= 0 (y null: everywhere d); sum[p] = sum of g, product[p] = sum of g * (x - mean), as
  // `moments` sums. g may be d or other.
  void (*gate)(const S* d, const S* other, const S* y, const S* x, int64_t total, int64_t period, const R* mean, S* g,
               double* sum, double* product);
  // dx = scale * (g - constant - (x - mean) * slope); dx may be g.
  void (*normalise_backward)(const S* g, const S* x, int64_t total, int64_t period, const R* mean, const R* scale,
                             const R* constant, const R* slope, S* dx);
  // out = max(in, 0); NaN stays NaN
  void (*relu)(const S* in, S* out, int64_t n);
  // dx = y <= 0 ? 0 : dy
  void (*relu_backward)(const S* y, const S* dy, S* dx, int64_t n);
  void (*add)(const S* a, const S* b, S* out, int64_t n);
  // sum[p] = sum over i = p, p + period, ... of x[i]
  void (*column_sums)(const S* x, int64_t total, int64_t period, double* sum);
  // One example. The largest of each window; NaN is larger than anything.
  void (*max_pool)(const Window& window, const S* in, S* out);
  // dx = dy at the first largest element of each window, summed; 0 elsewhere.
  void (*max_pool_backward)(const Window& window, const S* in, const S* out, const S* dy, S* dx);
  void (*widen)(const S* in, R* out, int64_t n);
  // out += in
  void (*widen_add)(const S* in, R* out, int64_t n);
  void (*narrow)(const R* in, S* out, int64_t n);
};

const LayerKernels<float>& layer_kernels(Isa isa, const float*);
const LayerKernels<Bf16>& layer_kernels(Isa isa, const Bf16*);
// Portable code only, whatever `isa`: for the oracle tests.
const LayerKernels<double>& layer_kernels(Isa isa, const double*);

}  // namespace lth
