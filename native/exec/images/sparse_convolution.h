// The products of a convolution of which few weights are left: each of the three where it is cheaper than the dense one.
#pragma once
#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "exec/images/dense_products.h"
#include "exec/images/values.h"
#include "kernels/sparse_plan.h"
#include "kernels/tuning.h"

namespace lth {

template <typename S>
class SparseConvolution {
  using R = Real<S>;
  static constexpr int64_t kBand = 1 << 20;  // bytes of rows that a band makes, beside those above and below it
  // Each slice has sums of its own: of more weights they would take much memory.
  static constexpr int64_t kMostGradients = 1 << 18;

 public:
  SparseConvolution(Values<S>& values, const SparseKernels<S>& kernels, const ProductCosts& costs, const DenseProducts& dense,
                    const Operation& op)
      : v_(values),
        kernels_(kernels),
        costs_(costs),
        dense_(dense),
        op_(op),
        window_(values.window(op)),
        units_(shape()[0]),
        channels_(shape()[1]),
        taps_(op.kernel.h * op.kernel.w),
        wants_dx_(op.inputs[0] != values.net.input) {
    const Window& w = window_;
    rows_ = SparseAxis::forward(w.height, w.out_height, w.kernel_h, w.stride_h, w.padding_h);
    columns_ = SparseAxis::forward(w.width, w.out_width, w.kernel_w, w.stride_w, w.padding_w);
    runs_ = place_runs(rows_, columns_, w.width, w.out_width);
    if (wants_dx_) {
      rows_back_ = SparseAxis::backward(w.height, w.out_height, w.kernel_h, w.stride_h, w.padding_h);
      columns_back_ = SparseAxis::backward(w.width, w.out_width, w.kernel_w, w.stride_w, w.padding_w);
      runs_back_ = place_runs(rows_back_, columns_back_, w.out_width, w.width);
    }
    plan_rows();
    // Offsets have 32 bits.
    const int64_t around = (w.kernel_h * std::max(w.width, w.out_width) + w.kernel_w) * kCell<S>;
    const int64_t image = std::max(v_.values[op.inputs[0]].elements, v_.values[op.output].elements);
    fits_ = std::max({image + around, band_x(), units_ * channels_ * taps_}) <= INT32_MAX;
  }

  // Which products are sparse from now on; the mask's bits are at the weight's offset. `gradient`: may the weights' be the
  // sparse one, which is 0 where no weight is left?
  void set_mask(std::span<const uint64_t> mask, Products products, bool gradient) {
    forward_ = backward_ = gradient_ = false;
    entries_ = entries_back_ = {};
    offsets_ = weights_ = starts_ = {};
    partial_ = {};
    if (!fits_ || products == Products::kDense) return;
    const bool all_sparse = products == Products::kSparse;
    const int64_t first = v_.net.layout->parameters[op_.weight].offset, size = units_ * channels_ * taps_;
    const Packing::Part& part = v_.store.packing.parts[op_.weight];
    const Packing::Part* const packed = part.packed ? &part : nullptr;
    const SparseShape shape = forward_shape();
    if (all_sparse || cheaper(dense_.forward.vectors, shape, runs_, mask, first)) {
      entries_ = {shape, rows_, columns_, mask, first, packed};
      forward_ = true;
    }
    const SparseShape back = backward_shape();
    if (wants_dx_ && (all_sparse || cheaper(dense_.backward.vectors, back, runs_back_, mask, first))) {
      entries_back_ = {back, rows_back_, columns_back_, mask, first, packed};
      backward_ = true;
    }
    const int64_t left = count_bits(mask, first, size);
    const ProductWork work = gradient_work(left);
    const double each = work.places * costs_.gradient_of_vector + work.runs * costs_.gradient_of_band;
    const double sparse = work.number * each + work.split * costs_.split_of_vector;
    if (gradient && (all_sparse || sparse < work.dense) && left <= kMostGradients) {
      plan_gradient(mask, first);
      gradient_ = true;
    }
  }

  bool forward() const { return forward_; }
  bool backward() const { return backward_; }
  bool gradient() const { return gradient_; }

  // What the products are made of with a mask: for who measures what they cost.
  ProductWork forward_work(std::span<const uint64_t> mask) const {
    return work_of(dense_.forward.vectors, forward_shape(), runs_, mask);
  }
  ProductWork backward_work(std::span<const uint64_t> mask) const {
    return work_of(dense_.backward.vectors, backward_shape(), runs_back_, mask);
  }
  // Of `left` weights.
  ProductWork gradient_work(int64_t left) const {
    const Window& w = window_;
    const int64_t bands = tasks_for(w.out_height, band_);
    return {dense_.gradient.vectors, static_cast<double>(left), static_cast<double>(bands), static_cast<double>(w.out_height * dy_row_ / kCell<S>),
            static_cast<double>(bands * (band_x() + band_dy()) / kCell<S>)};
  }

  // ---- Values of the weights, as S, or of those that are left where they are packed: so many tasks

  int64_t refresh_tasks() const { return tasks_for(entries_.size(), kRefresh); }
  int64_t refresh_back_tasks() const { return tasks_for(entries_back_.size(), kRefresh); }
  void refresh(const S* weights, int64_t task) { refresh(entries_, weights, task); }
  void refresh_back(const S* weights, int64_t task) { refresh(entries_back_, weights, task); }

  // ---- On a slice

  void convolve(int64_t slice) {
    const S* x = v_.image(op_.inputs[0], slice);
    S* y = v_.image(op_.output, slice);
    const R* bias = op_.bias >= 0 ? v_.weights(op_.bias) : nullptr;
    v_.in_parts(static_cast<int64_t>(runs_.size()), [&](int64_t from, int64_t to) {
      kernels_.convolve({x, entries_.entries(), entries_.starts(), op_.kernel.w, op_.kernel.h, runs_.data() + from, to - from, bias,
                         y, units_, v_.values[op_.output].places});
    });
  }

  void input_gradient(const S* dy, S* dx) {
    v_.in_parts(static_cast<int64_t>(runs_back_.size()), [&](int64_t from, int64_t to) {
      kernels_.convolve({dy, entries_back_.entries(), entries_back_.starts(), op_.kernel.w, op_.kernel.h, runs_back_.data() + from,
                         to - from, nullptr, dx, channels_, v_.values[op_.inputs[0]].places});
    });
  }

  // Elements of the rows that a thread needs at a time.
  int64_t band_x() const { return channels_padded() * x_channel(); }
  int64_t band_dy() const { return planes_of<S>(units_) * kPack<S> * band_ * dy_row_; }

  void weight_gradient(int64_t slice, const S* dy, S* of_x, S* of_dy) {
    if (offsets_.empty()) return;
    R* out = partial_.data() + slice * static_cast<int64_t>(offsets_.size());
    for (int64_t y0 = 0; y0 < window_.out_height; y0 += band_) {
      const int64_t y1 = std::min(window_.out_height, y0 + band_);
      const S* x = v_.image(op_.inputs[0], slice);
      v_.in_parts(planes_of<S>(channels_), [&](int64_t from, int64_t to) { split_x(x, y0, y1, from, to, of_x); });
      v_.in_parts(planes_of<S>(units_), [&](int64_t from, int64_t to) { split_dy(dy, y0, y1, from, to, of_dy); });
      v_.in_parts(units_, [&](int64_t from, int64_t to) {
        kernels_.weight_gradient({of_x, of_dy, y1 - y0, dy_row_, x_row_, dy_row_, band_ * dy_row_, offsets_.data(),
                                  starts_.data(), from, to, y0 > 0, out});
      });
    }
  }

  // The slices' sums, in their order, to where the weights are.
  void join() {
    const auto number = static_cast<int64_t>(offsets_.size());
    R* to = v_.gradients(op_.weight);
    v_.pool.parallel(tasks_for(number, kRefresh), [&](int64_t task) {
      for (int64_t i = task * kRefresh; i < std::min(number, (task + 1) * kRefresh); ++i) {
        R sum = partial_[i];
        for (int64_t s = 1; s < v_.slices; ++s) sum += partial_[s * number + i];
        to[weights_.empty() ? i : weights_[i]] = sum;
      }
    });
  }

 private:
  static constexpr int64_t kRefresh = 1 << 12;

  const std::vector<int64_t>& shape() const { return v_.net.layout->parameters[op_.weight].shape; }
  static int64_t taps_of(const PlaceRun& run) { return (run.x_to - run.x_from) * (run.y_to - run.y_from); }

  // From weights (K,C,h,w) to Y's units, and to dX's.
  SparseShape forward_shape() const {
    return {units_, channels_, channels_ * taps_, taps_, op_.kernel.w, op_.kernel.h, window_.height * window_.width, window_.width};
  }
  SparseShape backward_shape() const {
    return {channels_,    units_, taps_, channels_ * taps_, op_.kernel.w, op_.kernel.h, window_.out_height * window_.out_width,
            window_.out_width};
  }

  // Of one entry, as often as a run sees its tap.
  double each(const std::vector<PlaceRun>& runs, double of_run, double of_place) const {
    double sum = 0;
    for (const PlaceRun& run : runs) {
      sum += static_cast<double>(taps_of(run)) / static_cast<double>(taps_) * (of_run + of_place * run.count);
    }
    return sum;
  }

  ProductWork work_of(double dense, const SparseShape& shape, const std::vector<PlaceRun>& runs,
                      std::span<const uint64_t> mask) const {
    const int64_t first = v_.net.layout->parameters[op_.weight].offset;
    return {dense, static_cast<double>(SparseEntries<S>::count(shape, taps_, mask, first)), each(runs, 1, 0), each(runs, 0, 1), 0};
  }

  bool cheaper(double dense, const SparseShape& shape, const std::vector<PlaceRun>& runs, std::span<const uint64_t> mask,
               int64_t first) const {
    const double each = this->each(runs, costs_.entry_of_run, costs_.entry_of_place);
    // In bf16 there are no fewer entries than half the weights: many weights need not be looked at one by one.
    const auto left = static_cast<double>(count_bits(mask, first, units_ * channels_ * taps_));
    if (left / static_cast<double>(kPack<S>) * each >= dense) return false;
    return static_cast<double>(SparseEntries<S>::count(shape, taps_, mask, first)) * each < dense;
  }

  int64_t channels_padded() const { return planes_of<S>(channels_) * kPack<S>; }

  static int64_t floor_over(int64_t a, int64_t b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

  void refresh(SparseEntries<S>& entries, const S* weights, int64_t task) {
    entries.refresh(weights, task * kRefresh, std::min(entries.size(), (task + 1) * kRefresh));
  }

  // x, split by channel and by its places' remainders modulo the stride, so that a tap's places are neighbours: output
  // place o reads place o + q of the remainder r, where tap - padding = q * stride + r.
  void plan_rows() {
    const Window& w = window_;
    top_ = -floor_over(-w.padding_h, w.stride_h);
    left_ = -floor_over(-w.padding_w, w.stride_w);
    const int64_t below = std::max<int64_t>(0, floor_over(w.kernel_h - 1 - w.padding_h, w.stride_h));
    const int64_t right = std::max<int64_t>(0, floor_over(w.kernel_w - 1 - w.padding_w, w.stride_w));
    // Whole vectors of two places, where the storage is bf16.
    const int64_t width = padded(w.out_width, kPack<S>);
    dy_row_ = width * kLane;
    x_row_ = (left_ + width + right) * kLane;
    const int64_t rows = channels_ * w.stride_h * w.stride_w * x_row_ + units_ * dy_row_;
    const int64_t most = std::clamp<int64_t>(kBand / (rows * static_cast<int64_t>(sizeof(S))), 1, w.out_height);
    band_ = tasks_for(w.out_height, tasks_for(w.out_height, most));  // in equal parts
    x_rows_ = top_ + band_ + below;
  }

  int64_t x_phase() const { return x_rows_ * x_row_; }
  int64_t x_channel() const { return window_.stride_h * window_.stride_w * x_phase(); }

  void plan_gradient(std::span<const uint64_t> mask, int64_t first) {
    const Window& w = window_;
    const bool packed = v_.store.packed_gradients(op_.weight);
    for (int64_t unit = 0; unit < units_; ++unit) {
      starts_.push_back(static_cast<int32_t>(offsets_.size()));
      for (int64_t i = unit * channels_ * taps_; i < (unit + 1) * channels_ * taps_; ++i) {
        if (!bit_at(mask, first + i)) continue;
        const int64_t channel = i / taps_ % channels_, tap = i % taps_;
        const int64_t down = tap / w.kernel_w - w.padding_h, along = tap % w.kernel_w - w.padding_w;
        const int64_t y = floor_over(down, w.stride_h), x = floor_over(along, w.stride_w);
        const int64_t phase = (down - y * w.stride_h) * w.stride_w + along - x * w.stride_w;
        const int64_t row = channel * x_channel() + phase * x_phase() + (top_ + y) * x_row_;
        offsets_.push_back(static_cast<int32_t>(row + (left_ + x) * kLane));
        if (!packed) weights_.push_back(static_cast<int32_t>(i));
      }
    }
    starts_.push_back(static_cast<int32_t>(offsets_.size()));
    partial_.resize(v_.training_slices * offsets_.size());
    // What is not left has no gradient.
    if (!packed) std::fill_n(v_.gradients(op_.weight), units_ * channels_ * taps_, R(0));
  }

  // Rows [y0 - top, y1 + below) of every remainder of some planes, 0 outside.
  void split_x(const S* x, int64_t y0, int64_t y1, int64_t first, int64_t last, S* to) const {
    const Window& w = window_;
    std::fill(to + first * kPack<S> * x_channel(), to + last * kPack<S> * x_channel(), S{});
    const int64_t rows = x_rows_ - band_ + y1 - y0;
    for (int64_t plane = first; plane < last; ++plane) {
      const S* from = x + plane * w.height * w.width * kCell<S>;
      for (int64_t ry = 0; ry < w.stride_h; ++ry) {
        for (int64_t rx = 0; rx < std::min(w.stride_w, w.width); ++rx) {
          const int64_t count = std::min(x_row_ / kLane - left_, (w.width - rx + w.stride_w - 1) / w.stride_w);
          S* phase = to + plane * kPack<S> * x_channel() + (ry * w.stride_w + rx) * x_phase();
          for (int64_t row = 0; row < rows; ++row) {
            const int64_t y = (y0 - top_ + row) * w.stride_h + ry;
            if (y < 0 || y >= w.height) continue;
            kernels_.split(from, y * w.width + rx, w.stride_w, count, x_channel(), phase + row * x_row_ + left_ * kLane);
          }
        }
      }
    }
  }

  void split_dy(const S* dy, int64_t y0, int64_t y1, int64_t first, int64_t last, S* to) const {
    const int64_t width = window_.out_width, unit = band_ * dy_row_;
    for (int64_t plane = first; plane < last; ++plane) {
      for (int64_t y = y0; y < y1; ++y) {
        S* row = to + plane * kPack<S> * unit + (y - y0) * dy_row_;
        kernels_.split(dy + plane * window_.out_height * width * kCell<S>, y * width, 1, width, unit, row);
        for (int64_t i = 0; i < kPack<S>; ++i) std::fill(row + i * unit + width * kLane, row + i * unit + dy_row_, S{});
      }
    }
  }

  Values<S>& v_;
  const SparseKernels<S>& kernels_;
  const ProductCosts costs_;
  const DenseProducts dense_;
  const Operation& op_;
  const Window window_;
  const int64_t units_, channels_, taps_;
  const bool wants_dx_;
  SparseAxis rows_, columns_, rows_back_, columns_back_;
  std::vector<PlaceRun> runs_, runs_back_;
  bool fits_ = false, forward_ = false, backward_ = false, gradient_ = false;
  SparseEntries<S> entries_, entries_back_;
  // Gradients: rows above and left of the first place, elements of rows, output rows at once, rows of x for those.
  int64_t top_ = 0, left_ = 0, x_row_ = 0, dy_row_ = 0, band_ = 0, x_rows_ = 0;
  // Per weight that is left: its x, and, unless gradients are packed, its index; per unit: the first.
  std::vector<int32_t> offsets_, weights_, starts_;
  std::vector<R> partial_;                           // per slice and weight
};

}  // namespace lth
