// A dense product of a 3 x 3 convolution with stride 1 by Winograd's algorithm: forward, or the gradient of the input, which
// is the same of dY with the taps turned around.
#pragma once
#include <algorithm>
#include <vector>

#include "exec/images/turned.h"
#include "exec/images/values.h"

namespace lth {

template <typename S>
class WinogradProduct {
  using R = Real<S>;
  static constexpr int64_t kTaps = 9, kPlanesAtOnce = 16;
  static constexpr int64_t kTransformed = 512 << 10;  // bytes of transformed tiles that stay in the second cache

 public:
  // From an image of (channels, height, width) to one of (units, out_height, out_width).
  struct Shape {
    int64_t channels, height, width, units, out_height, out_width, padding_h, padding_w;
    int64_t unit_step, channel_step;  // of the weights
    bool turned;                      // their taps, from the last one to the first
  };

  WinogradProduct(Values<S>& values, TurnedImages<S>& memory, const Shape& shape)
      : v_(values), memory_(memory), s_(shape), planes_(planes_of<S>(shape.channels)) {
    // An odd number of cells from tile to tile: powers of two would put all of a plane's into the same sets of the cache.
    tile_ = (planes_ | 1) * kCell<S>;
    const int64_t row = tasks_for(s_.out_width, 2), pairs = tasks_for(row, 2);
    const int64_t fit = kTransformed / (2 * kWinogradPlaces * tile_ * static_cast<int64_t>(sizeof(S)));
    at_once_ = std::min(row, 2 * std::clamp<int64_t>(fit, 1, pairs));
    weights_.resize(padded(s_.units, kTile) * kWinogradPlaces * planes_ * kPack<S>);
    memory_.want_tiles(kWinogradPlaces * at_once_ * tile_);
  }

  int64_t pack_tasks() const { return tasks_for(s_.units, kTile); }

  // kTile units' weights, from the masters.
  void pack(const R* masters, int64_t tile) {
    constexpr int64_t kEach = kTile * kPack<S>;
    alignas(64) R taps[kTaps * kPlanesAtOnce * kEach];
    const int64_t units = std::min(kTile, s_.units - tile * kTile);
    S* to = weights_.data() + tile * kWinogradPlaces * planes_ * kEach;
    for (int64_t first = 0; first < planes_; first += kPlanesAtOnce) {
      const int64_t count = std::min(kPlanesAtOnce, planes_ - first), n = count * kEach;
      std::fill_n(taps, kTaps * n, R(0));
      for (int64_t u = 0; u < units; ++u) {
        for (int64_t c = 0; c < std::min(count * kPack<S>, s_.channels - first * kPack<S>); ++c) {
          const R* from = masters + (tile * kTile + u) * s_.unit_step + (first * kPack<S> + c) * s_.channel_step;
          R* at = taps + c / kPack<S> * kEach + u * kPack<S> + c % kPack<S>;
          for (int64_t tap = 0; tap < kTaps; ++tap) at[tap * n] = from[s_.turned ? kTaps - 1 - tap : tap];
        }
      }
      v_.images.winograd_weights(taps, n, planes_ * kEach, to + first * kEach);
    }
  }

  void run(const S* in, const R* bias, S* out) {
    v_.in_parts(tasks_for(s_.out_height, 2), [&](int64_t from, int64_t to) { run_rows(from, to, in, bias, out); });
  }

 private:
  // Of tiles.
  void run_rows(int64_t from, int64_t to, const S* in, const R* bias, S* out) {
    S* const transformed = memory_.tiles();
    const int64_t place = at_once_ * tile_, tiles = tasks_for(s_.out_width, 2);
    for (int64_t row = from; row < to; ++row) {
      for (int64_t first = 0; first < tiles; first += at_once_) {
        const int64_t count = std::min(at_once_, tiles - first);
        v_.images.winograd_inputs({in, planes_, s_.height, s_.width, s_.padding_h, s_.padding_w,
                                   s_.height * s_.width * kCell<S>, kCell<S>, row, first, count, 0, 4, transformed, place, tile_,
                                   kCell<S>});
        v_.images.winograd_convolve({transformed, planes_, place, tile_, weights_.data(), bias, row, first, count, out,
                                     planes_of<S>(s_.units), s_.out_height, s_.out_width});
      }
    }
  }

  Values<S>& v_;
  TurnedImages<S>& memory_;
  const Shape s_;
  const int64_t planes_;
  int64_t tile_ = 0, at_once_ = 0;  // elements from tile to tile; tiles of a row
  std::vector<S> weights_;          // (units / kTile, 16, planes, kTile, kPack)
};

}  // namespace lth
