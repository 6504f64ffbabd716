// A convolution on one slice after another, and its gradients.
//
// The gradient of the weights is a sum over all places and examples. Small weights' are summed slice by slice, each into
// memory of its own, and then in the slices' order. Large weights would need much memory for that: there, one thread
// sums some weights over all slices, in the same order for any number of threads.
#pragma once
#include <algorithm>
#include <vector>

#include "exec/images/values.h"
#include "kernels/axis.h"

namespace lth {

template <typename S>
class Convolution {
  using R = Real<S>;
  static constexpr int64_t kNarrowTask = 1 << 15;  // weights
  static constexpr int64_t kLargeWeights = 1 << 18;
  static constexpr int64_t kBand = 192 << 10;       // bytes of turned rows that stay in the second cache

 public:
  Convolution(Values<S>& values, const Operation& op)
      : v_(values),
        op_(op),
        window_(values.window(op)),
        channels_(shape()[1]),
        units_(shape()[0]),
        taps_(op.kernel.h * op.kernel.w),
        wants_dx_(op.inputs[0] != values.net.input),
        tile_units_(tile_units(units_)),
        tile_channels_(tile_channels(units_, channels_)),
        unit_tiles_(tasks_for(units_, tile_units_)),
        channel_tiles_(tasks_for(channels_, tile_channels_)),
        narrow_(units_ * channels_ * taps_),
        weights_(packed_size(units_, channels_)),
        turned_weights_(wants_dx_ ? packed_size(channels_, units_) : 0),
        bias_(op.bias >= 0 ? padded(units_, kTile) : 0) {
    const Window& w = window_;
    const bool pairs = v_.images.in_pairs;
    rows_ = AxisPlan::forward(w.height, w.out_height, w.kernel_h, w.stride_h, w.padding_h, false);
    columns_ = AxisPlan::forward(w.width, w.out_width, w.kernel_w, w.stride_w, w.padding_w, pairs);
    if (wants_dx_) {
      rows_back_ = AxisPlan::backward(w.height, w.out_height, w.kernel_h, w.stride_h, w.padding_h, false);
      columns_back_ = AxisPlan::backward(w.width, w.out_width, w.kernel_w, w.stride_w, w.padding_w, pairs);
    }
    const int64_t x_row = w.width * kLane * tile_channels_ * channel_tiles_;
    const int64_t dy_row = w.out_width * kLane * tile_units_ * unit_tiles_;
    if (large()) {
      turned_x_.resize(v_.most_slices * w.height * x_row);
      turned_dy_.resize(v_.most_slices * w.out_height * dy_row);
    } else {
      const int64_t row = static_cast<int64_t>(sizeof(S)) * (x_row * w.stride_h + dy_row);
      band_ = std::clamp<int64_t>(kBand / row, 1, w.out_height);
      partial_.resize(v_.most_slices * unit_tiles_ * channel_tiles_ * tile_size());
    }
    if (op.bias >= 0) partial_bias_.resize(v_.most_slices * padded(units_, kPack<S>));
  }

  // The masters (K,C,h,w) R become S, in so many tasks, and then, in so many, the tiles that Convolve reads.
  int64_t narrow_tasks() const { return tasks_for(shape_size(), kNarrowTask); }
  int64_t pack_tasks() const { return tasks_for(units_, kTile) + (wants_dx_ ? tasks_for(channels_, kTile) : 0); }

  void narrow(int64_t task) {
    const int64_t first = task * kNarrowTask, count = std::min(kNarrowTask, shape_size() - first);
    v_.images.narrow(v_.weights(op_.weight) + first, narrow_.data() + first, count);
  }

  void pack(int64_t task) {
    const int64_t row = channels_ * taps_, tiles = tasks_for(units_, kTile);
    if (task < tiles) {
      pack_tile(task, units_, row, channels_, taps_, weights_.data());
      if (op_.bias < 0) return;
      const R* bias = v_.weights(op_.bias);
      std::copy(bias + task * kTile, bias + std::min(units_, (task + 1) * kTile), bias_.data() + task * kTile);
    } else {
      // dX's units are the channels.
      pack_tile(task - tiles, channels_, taps_, units_, row, turned_weights_.data());
    }
  }

  void forward(int64_t slice) {
    const auto &in = v_.values[op_.inputs[0]], &out = v_.values[op_.output];
    v_.images.convolve({v_.image(op_.inputs[0], slice), in.planes, in.places, in.width, rows_.axis(), columns_.axis(), op_.kernel.w, taps_,
                        weights_.data(), op_.bias >= 0 ? bias_.data() : nullptr, v_.image(op_.output, slice), out.planes,
                        out.places, out.width});
  }

  void input_gradient(const S* dy, S* dx) {
    const auto &in = v_.values[op_.inputs[0]], &out = v_.values[op_.output];
    v_.images.convolve({dy, out.planes, out.places, out.width, rows_back_.axis(), columns_back_.axis(), op_.kernel.w, taps_,
                        turned_weights_.data(), nullptr, dx, in.planes, in.places, in.width});
  }

  void weight_gradient(int64_t slice, const S* dy) {
    const Window& w = window_;
    const S* x = v_.image(op_.inputs[0], slice);
    if (op_.bias >= 0) {
      v_.images.channel_sums(dy, planes_of<S>(units_), w.out_height * w.out_width,
                             partial_bias_.data() + slice * padded(units_, kPack<S>));
    }
    if (large()) {
      turn_x(x, 0, w.height, turned_x_.data() + slice * x_turned());
      turn_dy(dy, 0, w.out_height, turned_dy_.data() + slice * dy_turned());
      return;
    }
    static thread_local std::vector<S> of_x, of_dy;
    R* to = partial_.data() + slice * unit_tiles_ * channel_tiles_ * tile_size();
    for (int64_t y0 = 0; y0 < w.out_height; y0 += band_) {
      const int64_t y1 = std::min(w.out_height, y0 + band_);
      const int64_t first = std::clamp<int64_t>(y0 * w.stride_h - w.padding_h, 0, w.height);
      const int64_t last = std::clamp<int64_t>((y1 - 1) * w.stride_h - w.padding_h + w.kernel_h, first, w.height);
      of_x.resize(std::max<size_t>(of_x.size(), (last - first) * x_turned() / w.height));
      of_dy.resize(std::max<size_t>(of_dy.size(), (y1 - y0) * dy_turned() / w.out_height));
      turn_x(x, first, last, of_x.data());
      turn_dy(dy, y0, y1, of_dy.data());
      for (int64_t tile = 0; tile < unit_tiles_ * channel_tiles_; ++tile) {
        gradient_of_tile(tile, y0, y1, of_x.data(), first, of_dy.data(), y0, y0 > 0, to + tile * tile_size());
      }
    }
  }

  // Of all slices.
  void join() {
    v_.pool.parallel(unit_tiles_ * channel_tiles_, [&](int64_t tile) {
      static thread_local std::vector<R> sum;
      sum.resize(std::max<size_t>(sum.size(), tile_size()));
      if (large()) {
        for (int64_t s = 0; s < v_.slices; ++s) {
          gradient_of_tile(tile, 0, window_.out_height, turned_x_.data() + s * x_turned(), 0,
                           turned_dy_.data() + s * dy_turned(), 0, s > 0, sum.data());
        }
      } else {
        const R* from = partial_.data() + tile * tile_size();
        std::copy(from, from + tile_size(), sum.data());
        for (int64_t s = 1; s < v_.slices; ++s) {
          v_.vectors.add(sum.data(), from + s * unit_tiles_ * channel_tiles_ * tile_size(), sum.data(), tile_size());
        }
      }
      unpack(tile, sum.data());
    });
    if (op_.bias < 0) return;
    for (int64_t k = 0; k < units_; ++k) {
      double sum = 0;
      for (int64_t s = 0; s < v_.slices; ++s) sum += partial_bias_[s * padded(units_, kPack<S>) + k];
      v_.gradients(op_.bias)[k] = static_cast<R>(sum);
    }
  }

 private:
  bool large() const { return shape_size() >= kLargeWeights; }
  const std::vector<int64_t>& shape() const { return v_.net.layout->parameters[op_.weight].shape; }
  int64_t shape_size() const { return units_ * channels_ * taps_; }
  int64_t tile_size() const { return taps_ * tile_channels_ * tile_units_; }
  int64_t x_turned() const { return window_.height * window_.width * kLane * tile_channels_ * channel_tiles_; }
  int64_t dy_turned() const { return window_.out_height * window_.out_width * kLane * tile_units_ * unit_tiles_; }

  int64_t packed_size(int64_t units, int64_t channels) const {
    return padded(units, kTile) * taps_ * planes_of<S>(channels) * kPack<S>;
  }

  // kTile units' weights, of which the next unit's and the next channel's are so far apart.
  void pack_tile(int64_t tile, int64_t units, int64_t unit_step, int64_t channels, int64_t channel_step, S* to) const {
    const int64_t planes = planes_of<S>(channels), there = std::min(kTile, units - tile * kTile);
    const S* from = narrow_.data() + tile * kTile * unit_step;
    to += tile * taps_ * planes * kTile * kPack<S>;
    for (int64_t plane = 0; plane < planes; ++plane, from += kPack<S> * channel_step) {
      const int64_t left = std::min(kPack<S>, channels - plane * kPack<S>);
      for (int64_t tap = 0; tap < taps_; ++tap) {
        S* at = to + (tap * planes + plane) * kTile * kPack<S>;
        for (int64_t u = 0; u < there; ++u) {
          for (int64_t c = 0; c < left; ++c) at[u * kPack<S> + c] = from[u * unit_step + c * channel_step + tap];
        }
      }
    }
  }

  void turn_x(const S* x, int64_t first, int64_t last, S* to) const {
    v_.images.turn(x, planes_of<S>(channels_), window_.height * window_.width, first * window_.width,
                   (last - first) * window_.width, tile_channels_ * channel_tiles_, to);
  }
  void turn_dy(const S* dy, int64_t first, int64_t last, S* to) const {
    v_.images.turn(dy, planes_of<S>(units_), window_.out_height * window_.out_width, first * window_.out_width,
                   (last - first) * window_.out_width, tile_units_ * unit_tiles_, to);
  }

  void gradient_of_tile(int64_t tile, int64_t y0, int64_t y1, const S* x, int64_t x_row, const S* dy, int64_t dy_row, bool add,
                        R* out) const {
    v_.images.weight_gradient({&window_, y0, y1, x, dy, x_row, dy_row, tile_channels_ * channel_tiles_,
                               tile_units_ * unit_tiles_, tile / channel_tiles_ * tile_units_,
                               tile % channel_tiles_ * tile_channels_, tile_units_, tile_channels_, add, out});
  }

  // (taps, channels, units) of a tile -> its place in (K,C,h,w).
  void unpack(int64_t tile, const R* from) {
    const int64_t k0 = tile / channel_tiles_ * tile_units_, c0 = tile % channel_tiles_ * tile_channels_;
    R* to = v_.gradients(op_.weight);
    for (int64_t k = k0; k < std::min(units_, k0 + tile_units_); ++k) {
      for (int64_t c = c0; c < std::min(channels_, c0 + tile_channels_); ++c) {
        for (int64_t tap = 0; tap < taps_; ++tap) {
          to[(k * channels_ + c) * taps_ + tap] = from[(tap * tile_channels_ + c - c0) * tile_units_ + k - k0];
        }
      }
    }
  }

  Values<S>& v_;
  const Operation& op_;
  const Window window_;
  const int64_t channels_, units_, taps_;
  const bool wants_dx_;
  const int64_t tile_units_, tile_channels_, unit_tiles_, channel_tiles_;
  AxisPlan rows_, columns_, rows_back_, columns_back_;
  std::vector<S> narrow_;                    // the masters as S
  std::vector<S> weights_, turned_weights_;  // as Convolve reads them, for Y and for dX
  std::vector<R> bias_;
  int64_t band_ = 0;            // rows of the output that are turned at once
  std::vector<R> partial_;      // per slice: weights' gradients, tile by tile
  std::vector<S> turned_x_, turned_dy_;
  std::vector<double> partial_bias_;
};

}  // namespace lth
