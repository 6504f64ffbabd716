// The gradient of the weights of a 3 x 3 convolution with stride 1 by Winograd's algorithm: the transposed way of forward.
// Transformed tiles of x and of dY are multiplied place by place, summed over tiles and examples, and the sums become taps.
//
// Images are turned first, so that channels are innermost, and then transformed, which is of whole vectors either way.
// As in convolution.h, small weights are summed slice by slice, large ones over all slices.
#pragma once
#include <algorithm>
#include <vector>

#include "exec/images/gradient_tiles.h"
#include "exec/images/turned.h"
#include "exec/images/values.h"

namespace lth {

template <typename S>
class WinogradGradient {
  using R = Real<S>;
  static constexpr int64_t kSide = 4, kTaps = 9;  // kSide^2 = kWinogradPlaces
  static constexpr int64_t kTilesAtOnce = 16;     // or more, where a row has more
  static constexpr int64_t kBlock = 128;          // units, and channels, whose transformed tiles stay in the second cache

 public:
  WinogradGradient(Values<S>& values, TurnedImages<S>& memory, const Window& window, int64_t channels, int64_t units, bool large)
      : v_(values),
        memory_(memory),
        w_(window),
        large_(large),
        planes_x_(planes_of<S>(channels)),
        planes_dy_(planes_of<S>(units)),
        tiles_(units, channels),
        // Whole cells of channels.
        channels_(padded(tiles_.all_channels())),
        units_(tiles_.all_units()),
        rows_(tasks_for(w_.out_height, 2)),
        columns_(tasks_for(w_.out_width, 2)),
        rows_at_once_(std::max<int64_t>(1, kTilesAtOnce / columns_)) {
    if (!large_) {
      rows_at_once_ = std::min(rows_at_once_, rows_);
      partial_.resize(v_.training_slices * tiles_.number() * sums());
    }
  }

  // Once, in the order of the backward pass.
  void plan() {
    memory_.want_tiles(kSide * rows_at_once_ * columns_ * kLane * (std::min(units_, kBlock) + std::min(channels_, kBlock)));
    if (large_) {
      kept_ = memory_.keep(w_.height * x_row(), w_.out_height * dy_row());
      memory_.want_sums(tiles_.number() * sums());
    } else {
      memory_.want_band(std::min(w_.height, 2 * rows_at_once_ + 2) * x_row(), std::min(w_.out_height, 2 * rows_at_once_) * dy_row());
    }
  }

  void of_slice(int64_t slice, const S* x, const S* dy) {
    if (large_) {
      turn_x(x, 0, w_.height, memory_.x(kept_, slice));
      turn_dy(dy, 0, w_.out_height, memory_.dy(kept_, slice));
      return;
    }
    R* const to = partial_.data() + slice * tiles_.number() * sums();
    S *const of_x = memory_.band_x(), *const of_dy = memory_.band_dy();
    for (int64_t row = 0; row < rows_; row += rows_at_once_) {
      const int64_t count = std::min(rows_at_once_, rows_ - row);
      // The band's rows of x and dY, which are images of their own.
      const int64_t top = 2 * row - w_.padding_h;
      const int64_t first = std::clamp<int64_t>(top, 0, w_.height), last = std::clamp<int64_t>(top + 2 * count + 2, first, w_.height);
      const int64_t dy_last = std::min(w_.out_height, 2 * (row + count));
      turn_x(x, first, last, of_x);
      turn_dy(dy, 2 * row, dy_last, of_dy);
      v_.in_parts(tasks(), [&](int64_t from, int64_t end) {
        for (int64_t task = from; task < end; ++task) {
          const Block b = block(task / kSide);
          const int64_t side = task % kSide;
          for (int64_t i = 0; i < count; ++i) {
            transform({of_x, last - first, first - top, of_dy, dy_last - 2 * row, i}, b, side, i);
          }
          multiply(b, side, count, row > 0, to);
        }
      });
    }
  }

  // Of all slices; use(tile, taps) gets (9, channels, units) of each tile.
  template <typename F>
  void join(F&& use) {
    R* const all = large_ ? memory_.sums() : partial_.data();
    if (large_) sum_over_slices(all);
    v_.pool.parallel(tiles_.number(), [&](int64_t tile) {
      R* sum = all + tile * sums();
      if (!large_) {
        // Into the first slice's.
        for (int64_t s = 1; s < v_.slices; ++s) v_.vectors.add(sum, sum + s * tiles_.number() * sums(), sum, sums());
      }
      alignas(64) R taps[kTaps * kMostInTile];
      v_.images.winograd_taps(sum, tiles_.weights(), taps);
      use(tile, taps);
    });
  }

 private:
  static constexpr int64_t kMostInTile = 256;  // weights of a tile: 32 x 8 or 16 x 16

  struct Block {
    int64_t unit, units, channel, channels;
  };
  // A row of tiles of turned images: x with so many rows above it that are not there.
  struct Row {
    const S* x;
    int64_t height, above;
    const S* dy;
    int64_t dy_height, row;
  };

  int64_t sums() const { return kWinogradPlaces * tiles_.weights(); }
  int64_t x_row() const { return w_.width * kLane * channels_; }
  int64_t dy_row() const { return w_.out_width * kLane * units_; }

  void turn_x(const S* x, int64_t first, int64_t last, S* to) const {
    memory_.turn(x, planes_x_, w_.height * w_.width, first * w_.width, last * w_.width, channels_, to);
  }
  void turn_dy(const S* dy, int64_t first, int64_t last, S* to) const {
    memory_.turn(dy, planes_dy_, w_.out_height * w_.out_width, first * w_.out_width, last * w_.out_width, units_, to);
  }

  // A task is a block of units and channels and a row of the 4 x 4 places.
  int64_t tasks() const { return tasks_for(units_, kBlock) * tasks_for(channels_, kBlock) * kSide; }
  Block block(int64_t i) const {
    const int64_t across = tasks_for(channels_, kBlock), unit = i / across * kBlock, channel = i % across * kBlock;
    return {unit, std::min(kBlock, units_ - unit), channel, std::min(kBlock, channels_ - channel)};
  }

  // Transformed tiles of this thread: (4, tiles, kLane / kPack, channels, kPack) of x, then of dY.
  S* tiles_x() { return memory_.tiles(); }
  S* tiles_dy(const Block& b) { return memory_.tiles() + kSide * place(b.channels); }
  int64_t place(int64_t channels) const { return rows_at_once_ * columns_ * kLane * channels; }

  // A row of the 4 x 4 places of a block's tiles, of which this is the i-th row.
  void transform(const Row& r, const Block& b, int64_t side, int64_t i) {
    constexpr int64_t kPairs = kLane / kPack<S>;
    const auto of = [&](int64_t channels, S* to) {
      WinogradTiles<S> t{};
      t.planes = channels * kPack<S> / kCell<S>;
      t.in_plane = t.plane = kCell<S>;
      t.row = r.row;
      t.count = columns_;
      t.from = side;
      t.to = side + 1;
      t.tile = kLane * channels;
      t.place = place(channels);
      // The first of the side's places is at `to`.
      t.out = to + i * columns_ * t.tile - kSide * side * t.place;
      return t;
    };
    WinogradTiles<S> x = of(b.channels, tiles_x()), dy = of(b.units, tiles_dy(b));
    x.height = r.height;
    x.width = w_.width;
    x.padding_h = r.above;
    x.padding_w = w_.padding_w;
    x.in_place = kLane * channels_;
    dy.height = r.dy_height;
    dy.width = w_.out_width;
    dy.in_place = kLane * units_;
    for (int64_t n = 0; n < kPairs; ++n) {
      x.in = r.x + (n * channels_ + b.channel) * kPack<S>;
      v_.images.winograd_inputs(x);
      x.out += b.channels * kPack<S>;
      dy.in = r.dy + (n * units_ + b.unit) * kPack<S>;
      v_.images.winograd_gradients(dy);
      dy.out += b.units * kPack<S>;
    }
  }

  // Those places' products of so many rows of tiles, to the sums (tiles, 16, channels, units).
  void multiply(const Block& b, int64_t side, int64_t rows, bool add, R* to) {
    const int64_t number = rows * columns_;
    const Window line{1, number, 1, number, 1, 1, 1, 1, 0, 0};
    for (int64_t along = 0; along < kSide; ++along) {
      const S *x = tiles_x() + along * place(b.channels), *dy = tiles_dy(b) + along * place(b.units);
      for (int64_t unit = 0; unit < b.units; unit += tiles_.units) {
        for (int64_t channel = 0; channel < std::min(b.channels, tiles_.all_channels() - b.channel);
             channel += tiles_.channels) {
          const int64_t tile = tiles_.of(b.unit + unit, b.channel + channel);
          v_.images.weight_gradient({&line, 0, 1, x, dy, 0, 0, b.channels, b.units, unit, channel, tiles_.units, tiles_.channels, add,
                                     to + tile * sums() + (kSide * side + along) * tiles_.weights()});
        }
      }
    }
  }

  void sum_over_slices(R* to) {
    const int64_t all = v_.slices * rows_;
    v_.pool.parallel(tasks(), [&](int64_t task) {
      const Block b = block(task / kSide);
      const int64_t side = task % kSide;
      for (int64_t first = 0; first < all; first += rows_at_once_) {
        const int64_t count = std::min(rows_at_once_, all - first);
        for (int64_t i = 0; i < count; ++i) {
          const int64_t slice = (first + i) / rows_;
          transform({memory_.x(kept_, slice), w_.height, w_.padding_h, memory_.dy(kept_, slice), w_.out_height, (first + i) % rows_},
                    b, side, i);
        }
        multiply(b, side, count, first > 0, to);
      }
    });
  }

  Values<S>& v_;
  TurnedImages<S>& memory_;
  const Window w_;
  const bool large_;
  const int64_t planes_x_, planes_dy_;
  const GradientTiles tiles_;
  const int64_t channels_, units_, rows_, columns_;
  int64_t rows_at_once_;
  int kept_ = -1;           // what large weights are made of
  std::vector<R> partial_;  // per slice: sums, tile by tile
};

}  // namespace lth
