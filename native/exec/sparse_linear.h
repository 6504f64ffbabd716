// The products of a linear layer of which few weights are left, over columns (features, L) with the batch innermost: to the
// kernels of kernels/sparse.h that is a convolution of one tap over L / kLane places. Each of the three is sparse where it is
// cheaper than the dense one, which depends on shape, mask and L alone.
#pragma once
#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "core/bitmask.h"
#include "exec/executor.h"
#include "kernels/sparse_plan.h"
#include "kernels/tuning.h"

namespace lth {

template <typename T>
class SparseLinear {
 public:
  SparseLinear(ParameterStore& store, const SparseKernels<T>& kernels, const LinearCosts& costs, const Operation& op,
               bool wants_dx)
      : store_(store), kernels_(kernels), costs_(costs), op_(op), wants_dx_(wants_dx) {
    const std::vector<int64_t>& shape = store.layout().parameters[op.weight].shape;
    units_ = shape[0];
    features_ = shape[1];
  }

  // Of the store's masks from now on; `left_alone`: may the weights' gradients be made of those left alone?
  void set_mask(Products products, bool left_alone) {
    products_ = products;
    left_alone_ = left_alone;
    lanes_ = 0;
    entries_ = entries_back_ = {};
    offsets_ = starts_ = {};
    offset_lanes_ = 0;
    const ParameterSpec& spec = store_.layout().parameters[op_.weight];
    left_ = count_bits(store_.masks->words, spec.offset, spec.size);
  }

  // For batches of `lanes` examples, by which the products are chosen. The weights that are left are listed once for a mask:
  // the last batch of an epoch and those of an evaluation only move the places that they read.
  void use(int64_t lanes) {
    if (lanes == lanes_) return;
    lanes_ = 0;  // if this throws, the next call begins anew
    forward_ = backward_ = gradient_ = false;
    runs_.clear();
    const int64_t plane = lanes / kLane;
    for (int64_t at = 0; at < plane; at += kRun) {
      const auto first = static_cast<int32_t>(at);
      runs_.push_back({first, first, 1, 1, static_cast<int32_t>(std::min(kRun, plane - at)), 0, 1, 0, 1});
    }
    const int64_t size = units_ * features_;
    // Offsets and indices of weights have 32 bits.
    const bool fits = std::max(units_, features_) * lanes <= INT32_MAX && size <= INT32_MAX;
    if (products_ != Products::kDense && fits) {
      const double left = static_cast<double>(left_), all = static_cast<double>(size), places = static_cast<double>(plane);
      const ProductCosts& costs = is_wide(features_, units_, lanes, sizeof(T)) ? costs_.wide : costs_.near;
      const double entry = costs.entry_of_run * static_cast<double>(runs_.size()) + costs.entry_of_place * places;
      const bool all_sparse = products_ == Products::kSparse;
      if (all_sparse || left * entry < all * places) {
        list(entries_, {units_, features_, features_, 1, 1, 1, plane, 1});
        forward_ = true;
        if (wants_dx_) {
          list(entries_back_, {features_, units_, 1, features_, 1, 1, plane, 1});
          backward_ = true;
        }
      }
      if (left_alone_ && store_.packed_gradients(op_.weight) &&
          (all_sparse || left * (costs.gradient_of_band + costs.gradient_of_vector * places) < all * places)) {
        list_offsets(lanes);
        gradient_ = true;
      }
    }
    lanes_ = lanes;
  }

  bool forward() const { return forward_; }
  bool backward() const { return backward_; }
  bool gradient() const { return gradient_; }
  // What the forward product is made of, and all but the cost of the other two, with the mask at hand.
  ProductWork work() const {
    const double places = static_cast<double>(lanes_ / kLane);
    return {static_cast<double>(units_ * features_) * places, static_cast<double>(left_), static_cast<double>(runs_.size()),
            places, 0};
  }
  KernelChoice kernels() const { return {op_.name, forward_, wants_dx_ && backward_, gradient_, wants_dx_}; }

  // y(K, L) rows [k0, k1) = w x + bias, of the weights as they are now.
  void forward(const T* x, const T* bias, T* y, int64_t k0, int64_t k1) {
    convolve(entries_, x, bias ? bias + k0 : nullptr, y, k0, k1);
  }
  // dx(C, L) rows [c0, c1) = w^T dy
  void input_gradient(const T* dy, T* dx, int64_t c0, int64_t c1) { convolve(entries_back_, dy, nullptr, dx, c0, c1); }
  // Of the weights that are left of units [k0, k1), to the packed gradients.
  void weight_gradient(const T* dy, const T* x, int64_t k0, int64_t k1) const {
    kernels_.weight_gradient({x, dy, 1, lanes_, lanes_, lanes_, lanes_, offsets_.data(), starts_.data(), k0, k1, false,
                              store_.gradients_of<T>(op_.weight)});
  }

 private:
  // The weights that are left, or, if they are listed already, where they now read.
  void list(SparseEntries<T>& entries, const SparseShape& shape) const {
    if (entries.made()) return entries.set_plane(shape.in_plane);
    const SparseAxis one = SparseAxis::forward(1, 1, 1, 1, 0);
    const Packing::Part& part = store_.packing.parts[op_.weight];
    entries = {shape, one, one, store_.masks->words, store_.layout().parameters[op_.weight].offset, part.packed ? &part : nullptr};
  }

  // The same for the gradients of those weights.
  void list_offsets(int64_t lanes) {
    if (offset_lanes_ > 0) {
      for (int32_t& at : offsets_) at = static_cast<int32_t>(at / offset_lanes_ * lanes);
      offset_lanes_ = lanes;
      return;
    }
    const std::span<const uint64_t> mask = store_.masks->words;
    const int64_t first = store_.layout().parameters[op_.weight].offset;
    starts_.clear();
    offsets_.clear();
    offsets_.reserve(static_cast<size_t>(left_));
    for (int64_t unit = 0; unit < units_; ++unit) {
      starts_.push_back(static_cast<int32_t>(offsets_.size()));
      const int64_t row = unit * features_;
      for (int64_t c = 0; c < features_; ++c) {
        if (bit_at(mask, first + row + c)) offsets_.push_back(static_cast<int32_t>(c * lanes));
      }
    }
    starts_.push_back(static_cast<int32_t>(offsets_.size()));
    offset_lanes_ = lanes;
  }

  void convolve(SparseEntries<T>& entries, const T* in, const T* bias, T* out, int64_t first, int64_t last) {
    const T* left = store_.left_of<T>(op_.weight);
    const T* all = store_.weights.const_data_ptr<T>() + store_.layout().parameters[op_.weight].offset;
    entries.refresh(left ? left : all, entries.starts()[first], entries.starts()[last]);
    kernels_.convolve({in, entries.entries(), entries.starts() + first, 1, 1, runs_.data(), static_cast<int64_t>(runs_.size()),
                       bias, out + first * lanes_, last - first, lanes_ / kLane});
  }

  ParameterStore& store_;
  const SparseKernels<T>& kernels_;
  const LinearCosts costs_;
  const Operation& op_;
  const bool wants_dx_;
  int64_t units_ = 0, features_ = 0, lanes_ = 0;
  Products products_ = Products::kDense;
  bool left_alone_ = false;
  int64_t left_ = 0;  // weights
  bool forward_ = false, backward_ = false, gradient_ = false;
  std::vector<PlaceRun> runs_;
  SparseEntries<T> entries_, entries_back_;
  // Gradients: of each weight that is left, its x; of each unit, the first; and the lanes of a feature in those offsets.
  std::vector<int32_t> offsets_, starts_;
  int64_t offset_lanes_ = 0;
};

}  // namespace lth
