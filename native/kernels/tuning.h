// What sparse products cost beside dense ones on a machine: the table by which each product is chosen (design: contract 5).
// The choice is a function of shape, mask and this table alone, so another table is another set of bits.
#pragma once
#include <cstdint>
#include <iterator>
#include <span>
#include <string>

#include "kernels/layers.h"

namespace lth {

// A dense product's vector costs 1: of a convolution that is a place, a unit and a plane for a slice of the batch, of a
// linear layer a weight for kLane examples.
struct ProductCosts {
  // Forward, and the gradient of the input: each entry costs this for each run of places and for each of these.
  double entry_of_run, entry_of_place;
  // The gradients of the weights that are left: each costs this for each vector of places and for each band of rows (a linear
  // layer has one), and so does each vector that must be split into rows before (a linear layer has none).
  double gradient_of_vector, gradient_of_band, split_of_vector;

  bool operator==(const ProductCosts&) const = default;
};

// The defaults are built in: measured on an AMD EPYC with AVX512_BF16 before machines had tables of their own. They stay as
// they are, because runs without a table go on with them.
struct Tuning {
  ProductCosts fp32{8, 1.5, 3, 12, 0};    // convolutions
  ProductCosts bf16{8, 1.5, 3, 12, 0};    // convolutions
  ProductCosts linear{3, 1.5, 1.5, 4, 0};  // linear layers, in fp32 beside bf16 images too
  // Of those the wide ones: sparse products read columns from all over, and these lie beyond the nearest caches.
  ProductCosts wide{3, 1.5, 1.5, 4, 0};

  bool operator==(const Tuning&) const = default;
};

// Every part of a table and every cost of a part, by the names that JavaScript, files and errors have for them.
struct TuningPart {
  const char* name;
  ProductCosts Tuning::*costs;
};
struct TuningCost {
  const char* name;
  double ProductCosts::*value;
};
inline constexpr TuningPart kTuningParts[] = {
    {"fp32", &Tuning::fp32}, {"bf16", &Tuning::bf16}, {"linear", &Tuning::linear}, {"wide", &Tuning::wide}};
inline constexpr TuningCost kTuningCosts[] = {{"entryOfRun", &ProductCosts::entry_of_run},
                                              {"entryOfPlace", &ProductCosts::entry_of_place},
                                              {"gradientOfVector", &ProductCosts::gradient_of_vector},
                                              {"gradientOfBand", &ProductCosts::gradient_of_band},
                                              {"splitOfVector", &ProductCosts::split_of_vector}};
static_assert(sizeof(Tuning) == std::size(kTuningParts) * std::size(kTuningCosts) * sizeof(double), "one is missing here");

// Those of a storage type. In fp64, which is for comparisons, they are the built-in ones.
inline const ProductCosts& convolution_costs(const Tuning& t, const float*) { return t.fp32; }
inline const ProductCosts& convolution_costs(const Tuning& t, const Bf16*) { return t.bf16; }
inline ProductCosts convolution_costs(const Tuning&, const double*) { return Tuning{}.fp32; }
struct LinearCosts {
  ProductCosts near, wide;
};
inline LinearCosts linear_costs(const Tuning& t, const float*) { return {t.linear, t.wide}; }
inline LinearCosts linear_costs(const Tuning&, const double*) { return {Tuning{}.linear, Tuning{}.wide}; }

// Whether a linear layer is a wide one: more bytes of columns, of inputs or of outputs, than a core's own cache has.
inline bool is_wide(int64_t features, int64_t units, int64_t lanes, int64_t bytes_each) {
  constexpr int64_t kNear = 1 << 20;
  return (features > units ? features : units) * lanes * bytes_each > kNear;
}

// 16 hexadecimal digits that differ where a cost does: the table's word in a fingerprint. Empty for the built-in one.
std::string name_of(const Tuning& tuning);

// Error("invalid-argument") unless all costs are numbers in [0, 1e6].
void check(const Tuning& tuning);

// ---- From measurements to a table

// What one product is made of. Dense it costs `dense`, sparse number * (runs * c0 + places * c1) + split * c2, where the
// costs c are {entry_of_run, entry_of_place, none} or {gradient_of_band, gradient_of_vector, split_of_vector}.
struct ProductWork {
  double dense, number, runs, places, split;
};

struct ProductSample {
  ProductWork work;
  double ratio;  // seconds of the sparse product for one of the dense one
};

// The costs, none below 0, that explain the samples best, all of which count the same (least squares of relative errors); 0
// where no sample has any.
struct FittedCosts {
  double of_run, of_place, of_split;
};
FittedCosts fit(std::span<const ProductSample> samples);

// The nearest of 2^(i/4) in three digits, between 1/64 and 1024; 0 where x is below that. So coarse that a
// machine that is measured twice has the same costs or such that are a step apart.
double on_grid(double x);

}  // namespace lth
