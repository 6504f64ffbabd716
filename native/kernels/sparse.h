// Convolutions of which few weights are left: forward, the gradient of the input, and the weights' gradients where there
// are any, in the layout of kernels/layers.h. Their cost goes with the number of weights that are left.
//
// Which places a weight reads does not change while a mask stays: entries hold offsets, built once (sparse_plan.h), and only
// their values follow the weights from step to step.
#pragma once
#include <cstdint>

#include "kernels/layers.h"

namespace lth {

// One tap of one plane for one unit: out += weight * in[offset]. In bf16 a plane has two channels, and an entry is there
// if one of its weights is.
template <typename S>
struct Entry {
  int32_t offset;  // elements of S, from the first place that the output place reads
  S weight[kPack<S>];
};

constexpr int64_t kRun = 8;  // places at most

// Some places of the output, in a row or a column, that see the same taps inside.
struct PlaceRun {
  int32_t out, in;            // the first one, and the place that its offsets count from (cells; it may lie outside)
  int32_t out_step, in_step;  // to the next one
  int32_t count;
  int16_t x_from, x_to, y_from, y_to;  // ranks of the taps that are inside
};

// out(unit, place) = bias(unit) + sum over the unit's entries
template <typename S>
struct SparseConvolve {
  const S* in;
  const Entry<S>* entries;
  const int32_t* starts;  // (units, kernel_w, kernel_h): first entry of these ranks; and the end
  int64_t kernel_w, kernel_h;
  const PlaceRun* runs;
  int64_t number;          // of runs
  const Real<S>* bias;     // per unit, or null
  S* out;
  int64_t units, out_plane;  // out_plane: places of a plane
};

// out[i] [+]= sum over places and examples of x * dy, for each weight that is left.
template <typename S>
struct SparseWeightGradient {
  // Channel after channel, as `split` gives them: rows of places of kLane examples, 0 outside of the image.
  const S *x, *dy;
  int64_t rows, row;               // of the output; elements of a row, whole vectors
  int64_t x_row, dy_row, dy_unit;  // elements from row to row, and from unit to unit
  const int32_t* offsets;          // per weight: where its x begins
  const int32_t* starts;           // per unit: its first weight; and the end
  int64_t unit, last;              // units [unit, last)
  bool add;
  Real<S>* out;                    // per weight
};

template <typename S>
struct SparseKernels {
  Isa isa;
  void (*convolve)(const SparseConvolve<S>&);
  void (*weight_gradient)(const SparseWeightGradient<S>&);
  // Places of a plane, `step` apart, channel by channel: (kPack, `apart` elements), of them (count, kLane).
  void (*split)(const S* plane, int64_t place, int64_t step, int64_t count, int64_t apart, S* out);
};

const SparseKernels<float>& sparse_kernels(Isa isa, const float*);
const SparseKernels<Bf16>& sparse_kernels(Isa isa, const Bf16*);
const SparseKernels<double>& sparse_kernels(Isa isa, const double*);

}  // namespace lth
