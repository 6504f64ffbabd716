// A convolution on one slice after another, and its gradients.
//
// The gradient of the weights is a sum over all places and examples. Small weights' are summed slice by slice, each into
// memory of its own, and then in the slices' order. Large weights would need much memory for that: there, one thread
// sums some weights over all slices, in the same order for any number of threads.
//
// Its tiles have 8 channels or more. Where an image has few, as pictures do, each channel and tap becomes a channel of an
// image of the output's size, of which a kernel of 1 x 1 has the same weights in the same order: it is unfolded.
#pragma once
#include <algorithm>
#include <array>
#include <optional>
#include <type_traits>
#include <vector>

#include "exec/images/gradient_tiles.h"
#include "exec/images/sparse_convolution.h"
#include "exec/images/turned.h"
#include "exec/images/values.h"
#include "exec/images/winograd.h"
#include "exec/images/winograd_gradient.h"
#include "kernels/axis.h"

namespace lth {

template <typename S>
class Convolution {
  using R = Real<S>;
  static constexpr int64_t kNarrowTask = 1 << 15;  // weights
  static constexpr int64_t kLargeWeights = 1 << 18;
  static constexpr int64_t kBand = 192 << 10;  // bytes of turned rows that stay in the second cache
  static constexpr std::array<S, kLane * kTile> kOutside{};  // kTile channels of a place

 public:
  Convolution(Values<S>& values, TurnedImages<S>& turned, const SparseKernels<S>& sparse, const ProductCosts& costs,
              const Operation& op)
      : v_(values),
        turned_(turned),
        op_(op),
        window_(values.window(op)),
        channels_(shape()[1]),
        units_(shape()[0]),
        dense_(dense_products<S>(window_, channels_, units_)),
        sparse_(values, sparse, costs, dense_, op),
        taps_(op.kernel.h * op.kernel.w),
        wants_dx_(op.inputs[0] != values.net.input),
        unfolds_(!dense_.gradient.winograd && !large() && unfolding_pays()),
        gradient_window_(!unfolds_ ? window_
                                   : Window{window_.out_height, window_.out_width, window_.out_height, window_.out_width, 1, 1, 1,
                                            1, 0, 0}),
        gradient_channels_(unfolds_ ? channels_ * taps_ : channels_),
        gradient_taps_(unfolds_ ? 1 : taps_),
        tiles_(units_, gradient_channels_),
        bias_(op.bias >= 0 ? padded(units_, kTile) : 0) {
    const Window& w = window_;
    const bool pairs = v_.images.in_pairs;
    if (dense_.forward.winograd) {
      winograd_.emplace(v_, turned_, typename WinogradProduct<S>::Shape{channels_, w.height, w.width, units_, w.out_height,
                                                                        w.out_width, w.padding_h, w.padding_w,
                                                                        channels_ * taps_, taps_, false});
    } else {
      weights_.resize(packed_size(units_, channels_));
      rows_ = AxisPlan::forward(w.height, w.out_height, w.kernel_h, w.stride_h, w.padding_h, false);
      columns_ = AxisPlan::forward(w.width, w.out_width, w.kernel_w, w.stride_w, w.padding_w, pairs);
    }
    if (wants_dx_ && dense_.backward.winograd) {
      winograd_back_.emplace(v_, turned_, typename WinogradProduct<S>::Shape{units_, w.out_height, w.out_width, channels_,
                                                                             w.height, w.width, w.kernel_h - 1 - w.padding_h,
                                                                             w.kernel_w - 1 - w.padding_w, taps_,
                                                                             channels_ * taps_, true});
    } else if (wants_dx_) {
      turned_weights_.resize(packed_size(channels_, units_));
      rows_back_ = AxisPlan::backward(w.height, w.out_height, w.kernel_h, w.stride_h, w.padding_h, false);
      columns_back_ = AxisPlan::backward(w.width, w.out_width, w.kernel_w, w.stride_w, w.padding_w, pairs);
    }
    if (dense_.gradient.winograd) {
      winograd_gradient_.emplace(v_, turned_, w, channels_, units_, large());
    } else if (!large()) {
      // Rows of the output that are turned at once: bits depend on them, whether x is unfolded or not.
      const int64_t row = w.width * kLane * GradientTiles(units_, channels_).all_channels() * w.stride_h + dy_row();
      band_ = std::clamp<int64_t>(kBand / (static_cast<int64_t>(sizeof(S)) * row), 1, w.out_height);
      partial_.resize(v_.training_slices * tiles_.number() * tile_size());
    }
    for (int64_t c = 0; c < tiles_.channels; ++c) {
      for (int64_t tap = 0; tap < gradient_taps_; ++tap) place_in_tile_.push_back((tap * tiles_.channels + c) * tiles_.units);
    }
    if (op.bias >= 0) partial_bias_.resize(v_.training_slices * padded(units_, kPack<S>));
  }

  // Once, in the order of the backward pass.
  void plan_backward() {
    const Window& w = window_;
    turned_.want_band(sparse_.band_x(), sparse_.band_dy());
    if (winograd_gradient_) {
      winograd_gradient_->plan();
    } else if (large()) {
      kept_ = turned_.keep(w.height * x_row(), w.out_height * dy_row());
      turned_.want_sums(tiles_.number() * tile_size());
    } else {
      const int64_t in_rows = std::min(w.height, (band_ - 1) * w.stride_h + w.kernel_h);
      turned_.want_band(unfolds_ ? band_ * x_row() + in_rows * w.width * kLane * kTile : in_rows * x_row(), band_ * dy_row());
    }
  }

  // Which weights are left; `gradient`: may theirs be made alone?
  void set_mask(std::span<const uint64_t> mask, Products products, bool gradient) {
    sparse_.set_mask(mask, products, gradient);
    // Winograd's products read the masters.
    const bool forward = sparse_.forward() ? !packed().packed : !winograd_;
    const bool backward = wants_dx_ && (sparse_.backward() ? !packed().packed : !winograd_back_);
    const bool left = packed().packed && (sparse_.forward() || sparse_.backward());
    narrow_ = narrow_left_ = {};
    if (std::is_same_v<S, R>) return;
    if (forward || backward) narrow_.resize(shape_size());
    if (left) narrow_left_.resize(packed().size);
  }

  const SparseConvolution<S>& sparse() const { return sparse_; }
  KernelChoice kernels() const {
    return {op_.name, sparse_.forward(), wants_dx_ && sparse_.backward(), sparse_.gradient(), wants_dx_};
  }

  // The masters (K,C,h,w) R become S, in so many tasks, and then, in so many, what the products for Y and dX read.
  int64_t narrow_tasks() const { return narrow_all_tasks() + tasks_for(narrow_left_.size(), kNarrowTask); }
  int64_t pack_tasks() const { return sparse_.forward() ? sparse_.refresh_tasks() : tasks_for(units_, kTile); }
  int64_t pack_back_tasks() const {
    if (!wants_dx_) return 0;
    return sparse_.backward() ? sparse_.refresh_back_tasks() : tasks_for(channels_, kTile);
  }

  void narrow(int64_t task) {
    const bool all = task < narrow_all_tasks();
    std::vector<S>& to = all ? narrow_ : narrow_left_;
    const R* from = all ? v_.weights(op_.weight) : v_.store.template left_of<R>(op_.weight);
    const int64_t first = (all ? task : task - narrow_all_tasks()) * kNarrowTask;
    v_.images.narrow(from + first, to.data() + first, std::min(kNarrowTask, static_cast<int64_t>(to.size()) - first));
  }

  void pack(int64_t tile) {
    if (sparse_.forward()) return sparse_.refresh(for_entries(), tile);
    if (winograd_) {
      winograd_->pack(v_.weights(op_.weight), tile);
    } else {
      pack_tile(tile, units_, channels_ * taps_, channels_, taps_, weights_.data());
    }
    if (op_.bias < 0) return;
    const R* bias = v_.weights(op_.bias);
    std::copy(bias + tile * kTile, bias + std::min(units_, (tile + 1) * kTile), bias_.data() + tile * kTile);
  }

  // dX's units are the channels.
  void pack_back(int64_t tile) {
    if (sparse_.backward()) return sparse_.refresh_back(for_entries(), tile);
    if (winograd_back_) return winograd_back_->pack(v_.weights(op_.weight), tile);
    pack_tile(tile, channels_, taps_, units_, channels_ * taps_, turned_weights_.data());
  }

  void forward(int64_t slice) {
    if (sparse_.forward()) return sparse_.convolve(slice);
    const auto &in = v_.values[op_.inputs[0]], &out = v_.values[op_.output];
    const S* x = v_.image(op_.inputs[0], slice);
    const R* bias = op_.bias >= 0 ? bias_.data() : nullptr;
    S* y = v_.image(op_.output, slice);
    if (winograd_) return winograd_->run(x, bias, y);
    convolve({x, in.planes, in.places, in.width, rows_.axis(), columns_.axis(), op_.kernel.w, taps_, weights_.data(), bias, y,
              out.planes, out.places, out.width});
  }

  void input_gradient(const S* dy, S* dx) {
    if (sparse_.backward()) return sparse_.input_gradient(dy, dx);
    if (winograd_back_) return winograd_back_->run(dy, nullptr, dx);
    const auto &in = v_.values[op_.inputs[0]], &out = v_.values[op_.output];
    convolve({dy, out.planes, out.places, out.width, rows_back_.axis(), columns_back_.axis(), op_.kernel.w, taps_,
              turned_weights_.data(), nullptr, dx, in.planes, in.places, in.width});
  }

  void weight_gradient(int64_t slice, const S* dy) {
    const Window& w = gradient_window_;
    const S* x = v_.image(op_.inputs[0], slice);
    if (op_.bias >= 0) {
      const int64_t places = w.out_height * w.out_width;
      double* sums = partial_bias_.data() + slice * padded(units_, kPack<S>);
      v_.in_parts(planes_of<S>(units_), [&](int64_t from, int64_t to) {
        v_.images.channel_sums(dy + from * places * kCell<S>, to - from, places, sums + from * kPack<S>);
      });
    }
    if (sparse_.gradient()) return sparse_.weight_gradient(slice, dy, turned_.band_x(), turned_.band_dy());
    if (winograd_gradient_) return winograd_gradient_->of_slice(slice, x, dy);
    if (large()) {
      turn_x(x, 0, w.height, turned_.x(kept_, slice));
      turn_dy(dy, 0, w.out_height, turned_.dy(kept_, slice));
      return;
    }
    R* to = partial_.data() + slice * tiles_.number() * tile_size();
    S *const of_x = turned_.band_x(), *const of_dy = turned_.band_dy();
    for (int64_t y0 = 0; y0 < w.out_height; y0 += band_) {
      const int64_t y1 = std::min(w.out_height, y0 + band_);
      const int64_t first = std::clamp<int64_t>(y0 * w.stride_h - w.padding_h, 0, w.height);
      const int64_t last = std::clamp<int64_t>((y1 - 1) * w.stride_h - w.padding_h + w.kernel_h, first, w.height);
      unfolds_ ? unfold(x, y0, y1, of_x) : turn_x(x, first, last, of_x);
      turn_dy(dy, y0, y1, of_dy);
      v_.in_parts(tiles_.number(), [&](int64_t from, int64_t end) {
        for (int64_t tile = from; tile < end; ++tile) {
          gradient_of_tile(tile, of_x, {first, last}, of_dy, {y0, y1}, y0 > 0, to + tile * tile_size());
        }
      });
    }
  }

  // Of all slices.
  void join() {
    join_bias();
    if (sparse_.gradient()) return sparse_.join();
    if (winograd_gradient_) return winograd_gradient_->join([this](int64_t tile, const R* taps) { unpack(tile, taps); });
    v_.pool.parallel(tiles_.number(), [&](int64_t tile) {
      R* sum = (large() ? turned_.sums() : partial_.data()) + tile * tile_size();
      if (large()) {
        const Rows x{0, window_.height}, dy{0, window_.out_height};
        for (int64_t s = 0; s < v_.slices; ++s) {
          gradient_of_tile(tile, turned_.x(kept_, s), x, turned_.dy(kept_, s), dy, s > 0, sum);
        }
      } else {
        // Into the first slice's.
        for (int64_t s = 1; s < v_.slices; ++s) v_.vectors.add(sum, sum + s * tiles_.number() * tile_size(), sum, tile_size());
      }
      unpack(tile, sum);
    });
  }

 private:
  void join_bias() {
    if (op_.bias < 0) return;
    for (int64_t k = 0; k < units_; ++k) {
      double sum = 0;
      for (int64_t s = 0; s < v_.slices; ++s) sum += partial_bias_[s * padded(units_, kPack<S>) + k];
      v_.gradients(op_.bias)[k] = static_cast<R>(sum);
    }
  }

  // Of channels that one tile holds: what is copied costs about as much as two vectors of products.
  bool unfolding_pays() const {
    if (channels_ > kTile) return false;
    const int64_t unfolded = padded(channels_ * taps_, kTile), saved = taps_ * padded(channels_, kTile) - unfolded;
    return saved * padded(units_) / kLane >= 2 * unfolded;
  }
  bool large() const { return shape_size() >= kLargeWeights; }
  const std::vector<int64_t>& shape() const { return v_.net.layout->parameters[op_.weight].shape; }
  const Packing::Part& packed() const { return v_.store.packing.parts[op_.weight]; }
  int64_t shape_size() const { return units_ * channels_ * taps_; }
  int64_t tile_size() const { return gradient_taps_ * tiles_.weights(); }
  // Elements of a turned row.
  int64_t x_row() const { return gradient_window_.width * kLane * tiles_.all_channels(); }
  int64_t dy_row() const { return window_.out_width * kLane * tiles_.all_units(); }

  // The weights as S.
  const S* narrowed() const {
    if constexpr (std::is_same_v<S, R>) {
      return v_.weights(op_.weight);
    } else {
      return narrow_.data();
    }
  }

  // The same as entries of sparse products know them: those that are left, where they are packed.
  const S* for_entries() const {
    if (!packed().packed) return narrowed();
    if constexpr (std::is_same_v<S, R>) {
      return v_.store.template left_of<R>(op_.weight);
    } else {
      return narrow_left_.data();
    }
  }

  int64_t narrow_all_tasks() const { return tasks_for(narrow_.size(), kNarrowTask); }

  int64_t packed_size(int64_t units, int64_t channels) const {
    return padded(units, kTile) * taps_ * planes_of<S>(channels) * kPack<S>;
  }

  // kTile units' weights, of which the next unit's and the next channel's are so far apart.
  void pack_tile(int64_t tile, int64_t units, int64_t unit_step, int64_t channels, int64_t channel_step, S* to) const {
    const int64_t planes = planes_of<S>(channels), there = std::min(kTile, units - tile * kTile);
    const S* from = narrowed() + tile * kTile * unit_step;
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

  // Some rows at a time, or some units where there are few rows.
  void convolve(const Convolve<S>& all) {
    constexpr int64_t kPlanes = kTile / kPack<S>;
    const int64_t rows = all.rows.size, tiles = tasks_for(all.out_planes, kPlanes);
    const auto rounds = [&](int64_t number) {
      return static_cast<double>(tasks_for(number, v_.pool.threads())) / static_cast<double>(number);
    };
    if (rounds(rows) <= rounds(tiles)) {
      return v_.in_parts(rows, [&](int64_t from, int64_t to) {
        Convolve<S> part = all;
        part.rows.pairs += from;
        part.rows.size = to - from;
        v_.images.convolve(part);
      });
    }
    v_.in_parts(tiles, [&](int64_t from, int64_t to) {
      Convolve<S> part = all;
      part.weights += from * taps_ * all.in_planes * kTile * kPack<S>;
      if (part.bias) part.bias += from * kTile;
      part.out += from * kPlanes * all.out_plane * kCell<S>;
      part.out_planes = std::min(all.out_planes, to * kPlanes) - from * kPlanes;
      v_.images.convolve(part);
    });
  }

  void turn_x(const S* x, int64_t first, int64_t last, S* to) const {
    turned_.turn(x, planes_of<S>(channels_), window_.height * window_.width, first * window_.width, last * window_.width,
                 tiles_.channels, to);
  }

  // The unfolded image's rows [y0, y1), turned, 0 where a tap reads outside; behind them the rows of x that they come from.
  void unfold(const S* x, int64_t y0, int64_t y1, S* to) {
    const Window& w = window_;
    const int64_t first = std::clamp<int64_t>(y0 * w.stride_h - w.padding_h, 0, w.height);
    const int64_t last = std::clamp<int64_t>((y1 - 1) * w.stride_h - w.padding_h + w.kernel_h, first, w.height);
    S* const rows = to + band_ * x_row();
    turned_.turn(x, planes_of<S>(channels_), w.height * w.width, first * w.width, last * w.width, kTile, rows);
    const int64_t in_tile = tiles_.channels, tile = (y1 - y0) * w.out_width * kLane * in_tile;
    v_.in_parts(tiles_.all_channels() / kTile, [&](int64_t from, int64_t end) {
      // kTile channels at a time, of which a pair of examples is written at once.
      for (int64_t channel = from * kTile; channel < end * kTile; channel += kTile) {
        int64_t c[kTile], down[kTile], along[kTile];
        for (int64_t i = 0; i < kTile; ++i) {
          const int64_t tap = (channel + i) % taps_;
          c[i] = (channel + i) / taps_;
          down[i] = tap / w.kernel_w - w.padding_h;
          along[i] = tap % w.kernel_w - w.padding_w;
        }
        S* at = to + channel / in_tile * tile + channel % in_tile * kPack<S>;
        for (int64_t out = y0 * w.out_width; out < y1 * w.out_width; ++out) {
          const S* read[kTile];
          for (int64_t i = 0; i < kTile; ++i) {
            const int64_t in_y = out / w.out_width * w.stride_h + down[i], in_x = out % w.out_width * w.stride_w + along[i];
            const bool inside = c[i] < channels_ && in_y >= 0 && in_y < w.height && in_x >= 0 && in_x < w.width;
            read[i] = inside ? rows + ((in_y - first) * w.width + in_x) * kLane * kTile + c[i] * kPack<S> : kOutside.data();
          }
          for (int64_t n = 0; n < kLane * kTile; n += kTile * kPack<S>, at += in_tile * kPack<S>) {
            for (int64_t i = 0; i < kTile; ++i) std::copy_n(read[i] + n, kPack<S>, at + i * kPack<S>);
          }
        }
      }
    });
  }

  void turn_dy(const S* dy, int64_t first, int64_t last, S* to) const {
    turned_.turn(dy, planes_of<S>(units_), window_.out_height * window_.out_width, first * window_.out_width,
                 last * window_.out_width, tiles_.units, to);
  }

  // Of turned rows, of which those of a tile's channels or units are side by side.
  struct Rows {
    int64_t first, last;
  };
  void gradient_of_tile(int64_t tile, const S* x, const Rows& in, const S* dy, const Rows& out, bool add, R* to) const {
    x += tiles_.first_channel(tile) * (in.last - in.first) * gradient_window_.width * kLane;
    dy += tiles_.first_unit(tile) * (out.last - out.first) * window_.out_width * kLane;
    v_.images.weight_gradient({&gradient_window_, out.first, out.last, x, dy, in.first, out.first, tiles_.channels, tiles_.units,
                               0, 0, tiles_.units, tiles_.channels, add, to});
  }

  // (taps, channels, units) of a tile -> its place in (K,C,h,w).
  void unpack(int64_t tile, const R* from) {
    const int64_t k0 = tiles_.first_unit(tile), c0 = tiles_.first_channel(tile);
    R* to = v_.gradients(op_.weight);
    const Packing::Part* packed = v_.store.packed_gradients(op_.weight);
    if (packed) return unpack_left(*packed, k0, c0, from, to);
    for (int64_t k = k0; k < std::min(units_, k0 + tiles_.units); ++k) {
      for (int64_t c = c0; c < std::min(gradient_channels_, c0 + tiles_.channels); ++c) {
        for (int64_t tap = 0; tap < gradient_taps_; ++tap) {
          to[(k * gradient_channels_ + c) * gradient_taps_ + tap] = from[(tap * tiles_.channels + c - c0) * tiles_.units + k - k0];
        }
      }
    }
  }

  // The same of those weights alone that are left: of a unit they lie behind one another.
  void unpack_left(const Packing::Part& packed, int64_t k0, int64_t c0, const R* from, R* to) const {
    const uint64_t* mask = v_.store.mask_of(op_.weight);
    const int64_t c1 = std::min(gradient_channels_, c0 + tiles_.channels);
    for (int64_t k = k0; k < std::min(units_, k0 + tiles_.units); ++k) {
      const int64_t of_unit = k * gradient_channels_, first = (of_unit + c0) * gradient_taps_, end = (of_unit + c1) * gradient_taps_;
      const R* unit = from + k - k0;
      for (int64_t x = Packing::rank(packed, mask, first); x < packed.size && packed.places[x] < end; ++x) {
        to[x] = unit[place_in_tile_[packed.places[x] - first]];
      }
    }
  }

  Values<S>& v_;
  TurnedImages<S>& turned_;
  const Operation& op_;
  const Window window_;
  const int64_t channels_, units_;
  const DenseProducts dense_;
  SparseConvolution<S> sparse_;
  const int64_t taps_;
  const bool wants_dx_;
  // Of the gradient of the weights: channels and taps as its product sees them.
  const bool unfolds_;
  const Window gradient_window_;
  const int64_t gradient_channels_, gradient_taps_;
  const GradientTiles tiles_;
  std::optional<WinogradProduct<S>> winograd_, winograd_back_;  // of Y and of dX
  std::optional<WinogradGradient<S>> winograd_gradient_;        // or place by place:
  AxisPlan rows_, columns_, rows_back_, columns_back_;
  // The masters as S, where S is not R and a product reads them so: all, or those that are left of packed ones.
  std::vector<S> narrow_, narrow_left_;
  std::vector<S> weights_, turned_weights_;  // as Convolve reads them, for Y and for dX
  std::vector<R> bias_;
  std::vector<int64_t> place_in_tile_;       // of (channel, tap) in a tile, the first unit's
  int64_t band_ = 0;        // rows of the output that are turned at once
  int kept_ = -1;           // what large weights are made of
  std::vector<R> partial_;  // per slice: weights' gradients, tile by tile
  std::vector<double> partial_bias_;
};

}  // namespace lth
