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
  SparseLinear(ParameterStore& store, const SparseKernels<T>& kernels, const ProductCosts& costs, const Operation& op,
               bool wants_dx)
      : store_(store), kernels_(kernels), costs_(costs), op_(op), wants_dx_(wants_dx) {
    const std::vector<int64_t>& shape = store.layout().parameters[op.weight].shape;
    units_ = shape[0];
    features_ = shape[1];
  }

  // Of the store's masks, for batches of `lanes` examples; `gradient`: may the weights' be made of those left alone?
  void set_mask(int64_t lanes, Products products, bool gradient) {
    lanes_ = lanes;
    forward_ = backward_ = gradient_ = false;
    entries_ = entries_back_ = {};
    offsets_ = starts_ = {};
    const ParameterSpec& spec = store_.layout().parameters[op_.weight];
    if (products == Products::kDense || std::max(units_, features_) * lanes > INT32_MAX || spec.size > INT32_MAX) return;
    const std::span<const uint64_t> mask = store_.masks->words;
    const double left = static_cast<double>(count_bits(mask, spec.offset, spec.size));
    const double all = static_cast<double>(spec.size), places = static_cast<double>(lanes / kLane);
    runs_.clear();
    for (int64_t at = 0; at < lanes / kLane; at += kRun) {
      const auto first = static_cast<int32_t>(at);
      runs_.push_back({first, first, 1, 1, static_cast<int32_t>(std::min(kRun, lanes / kLane - at)), 0, 1, 0, 1});
    }
    const double entry = costs_.entry_of_run * static_cast<double>(runs_.size()) + costs_.entry_of_place * places;
    const SparseAxis one = SparseAxis::forward(1, 1, 1, 1, 0);
    const int64_t plane = lanes / kLane;
    const bool all_sparse = products == Products::kSparse;
    if (all_sparse || left * entry < all * places) {
      entries_ = {{units_, features_, features_, 1, 1, 1, plane, 1}, one, one, mask, spec.offset};
      forward_ = true;
      if (wants_dx_) {
        entries_back_ = {{features_, units_, 1, features_, 1, 1, plane, 1}, one, one, mask, spec.offset};
        backward_ = true;
      }
    }
    gradient_ = gradient && store_.packed_gradients(op_.weight) &&
                (all_sparse || left * (costs_.gradient_of_band + costs_.gradient_of_vector * places) < all * places);
    if (!gradient_) return;
    for (int64_t unit = 0; unit < units_; ++unit) {
      starts_.push_back(static_cast<int32_t>(offsets_.size()));
      const int64_t row = unit * features_;
      for (int64_t c = 0; c < features_; ++c) {
        if (bit_at(mask, spec.offset + row + c)) offsets_.push_back(static_cast<int32_t>(c * lanes));
      }
    }
    starts_.push_back(static_cast<int32_t>(offsets_.size()));
  }

  bool forward() const { return forward_; }
  bool backward() const { return backward_; }
  bool gradient() const { return gradient_; }
  // What the forward product is made of, and all but the cost of the other two, with the mask at hand.
  ProductWork work() const {
    const ParameterSpec& spec = store_.layout().parameters[op_.weight];
    const double places = static_cast<double>(lanes_ / kLane);
    return {static_cast<double>(spec.size) * places, static_cast<double>(count_bits(store_.masks->words, spec.offset, spec.size)),
            static_cast<double>(runs_.size()), places, 0};
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
  void convolve(SparseEntries<T>& entries, const T* in, const T* bias, T* out, int64_t first, int64_t last) {
    const T* weights = store_.weights.data_ptr<T>() + store_.layout().parameters[op_.weight].offset;
    entries.refresh(weights, entries.starts()[first], entries.starts()[last]);
    kernels_.convolve({in, entries.entries(), entries.starts() + first, 1, 1, runs_.data(), static_cast<int64_t>(runs_.size()),
                       bias, out + first * lanes_, last - first, lanes_ / kLane});
  }

  ParameterStore& store_;
  const SparseKernels<T>& kernels_;
  const ProductCosts costs_;
  const Operation& op_;
  const bool wants_dx_;
  int64_t units_ = 0, features_ = 0, lanes_ = 0;
  bool forward_ = false, backward_ = false, gradient_ = false;
  std::vector<PlaceRun> runs_;
  SparseEntries<T> entries_, entries_back_;
  std::vector<int32_t> offsets_, starts_;  // of each weight that is left: its x; of each unit: the first
};

}  // namespace lth
