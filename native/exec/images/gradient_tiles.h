// How the gradient of a convolution's weights is cut into tiles of units and channels (LayerKernels::weight_gradient), the
// channels' tiles of some units behind one another.
#pragma once
#include <cstdint>

#include "core/pool.h"
#include "kernels/layers.h"

namespace lth {

struct GradientTiles {
  const int64_t units, channels;  // of a tile
  const int64_t down, across;     // tiles of units, of channels

  GradientTiles(int64_t all_units, int64_t all_channels)
      : units(tile_units(all_units)),
        channels(tile_channels(all_units, all_channels)),
        down(tasks_for(all_units, units)),
        across(tasks_for(all_channels, channels)) {}

  int64_t number() const { return down * across; }
  int64_t weights() const { return units * channels; }  // of a tile
  int64_t all_units() const { return down * units; }
  int64_t all_channels() const { return across * channels; }
  int64_t first_unit(int64_t tile) const { return tile / across * units; }
  int64_t first_channel(int64_t tile) const { return tile % across * channels; }
  // The tile of a unit and a channel.
  int64_t of(int64_t unit, int64_t channel) const { return unit / units * across + channel / channels; }
};

}  // namespace lth
