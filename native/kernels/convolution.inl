// The products of convolutions (kernels/layers.h), over a vector type as layers.inl is: forward, the gradient of the input
// (which is the same sum over other places), the gradient of the weights.

// One output place, or two, of kTile units: the sums stay in registers over all taps and channels. `packed`: the cells of the
// one tap side by side, as `pack_places` makes them, or null.
template <bool kTwo, typename S>
static inline __attribute__((always_inline)) void convolve_places(const Convolve<S>& c, const S* weights, int64_t tile,
                                                                  const Axis::Pair& row, const Axis::Pair& column,
                                                                  int64_t lanes, const S* packed = nullptr) {
  using C = Cells<S>;
  vec sum[2][kTile];
#pragma GCC unroll 8
  for (int64_t k = 0; k < kTile; ++k) sum[0][k] = sum[1][k] = c.bias ? splat(c.bias[tile * kTile + k]) : splat(0);
  const int64_t plane = (packed ? kTwo ? 2 : 1 : c.in_plane) * kCell<S>, apart = (packed ? 1 : c.columns.step) * kCell<S>;
  for (int32_t v = row.from; v < row.to; ++v) {
    const Axis::Tap& vertical = c.rows.taps[v];
    for (int32_t h = column.from; h < column.to; ++h) {
      const Axis::Tap& horizontal = c.columns.taps[h];
      const S* w = weights + (vertical.tap * c.kernel_w + horizontal.tap) * c.in_planes * kTile * kPack<S>;
      const S* const end = w + c.in_planes * kTile * kPack<S>;
      const S* x = packed ? packed : c.in + (vertical.in * c.in_width + horizontal.in) * kCell<S>;
      x += lanes * kPack<S>;
      if (kTwo && horizontal.first && horizontal.second) {
        for (; w != end; w += kTile * kPack<S>, x += plane) {
          const auto a = C::read(x), b = C::read(x + apart);
#pragma GCC unroll 8
          for (int64_t k = 0; k < kTile; ++k) {
            const auto one = C::repeat(w + k * kPack<S>);
            sum[0][k] = C::dot(a, one, sum[0][k]);
            sum[1][k] = C::dot(b, one, sum[1][k]);
          }
        }
      } else if (!kTwo || horizontal.first) {
        for (; w != end; w += kTile * kPack<S>, x += plane) {
          const auto a = C::read(x);
#pragma GCC unroll 8
          for (int64_t k = 0; k < kTile; ++k) sum[0][k] = C::dot(a, C::repeat(w + k * kPack<S>), sum[0][k]);
        }
      } else {
        x += apart;
        for (; w != end; w += kTile * kPack<S>, x += plane) {
          const auto a = C::read(x);
#pragma GCC unroll 8
          for (int64_t k = 0; k < kTile; ++k) sum[1][k] = C::dot(a, C::repeat(w + k * kPack<S>), sum[1][k]);
        }
      }
    }
  }
  constexpr int64_t kPlanes = kTile / kPack<S>;
  const int64_t left = c.out_planes - tile * kPlanes;
#pragma GCC unroll 8
  for (int64_t p = 0; p < kPlanes; ++p) {
    if (p < left) {
      S* out = c.out + ((tile * kPlanes + p) * c.out_plane + row.first * c.out_width) * kCell<S> + lanes * kPack<S>;
      Pack<S> v;
#pragma GCC unroll 2
      for (int64_t i = 0; i < kPack<S>; ++i) v[i] = sum[0][p * kPack<S> + i];
      store_cell<S>(out + column.first * kCell<S>, v);
      if (kTwo) {
#pragma GCC unroll 2
        for (int64_t i = 0; i < kPack<S>; ++i) v[i] = sum[1][p * kPack<S> + i];
        store_cell<S>(out + column.second * kCell<S>, v);
      }
    }
  }
}

template <typename S>
static inline __attribute__((always_inline)) void convolve_pair(const Convolve<S>& c, const S* weights, int64_t tile,
                                                                const Axis::Pair& row, const Axis::Pair& column,
                                                                const S* packed = nullptr) {
  for (int64_t lanes = 0; lanes < kLane; lanes += kWidth) {
    if (column.second < 0) {
      convolve_places<false>(c, weights, tile, row, column, lanes, packed);
    } else {
      convolve_places<true>(c, weights, tile, row, column, lanes, packed);
    }
  }
}

template <typename S>
static void convolve_row(const Convolve<S>& c, int64_t tile, const Axis::Pair& row) {
  const S* weights = c.weights + tile * c.taps * c.in_planes * kTile * kPack<S>;
  for (int64_t i = 0; i < c.columns.size; ++i) convolve_pair(c, weights, tile, row, c.columns.pairs[i]);
}

// (planes, two or one) cells that the only tap of a pair of places reads.
template <typename S>
static void pack_places(const Convolve<S>& c, const Axis::Pair& row, const Axis::Pair& column, S* to) {
  const int64_t two = column.second < 0 ? 1 : 2;
  const S* from = c.in + (c.rows.taps[row.from].in * c.in_width + c.columns.taps[column.from].in) * kCell<S>;
  for (int64_t p = 0; p < c.in_planes; ++p, from += c.in_plane * kCell<S>, to += two * kCell<S>) {
    std::memcpy(static_cast<void*>(to), from, kCell<S> * sizeof(S));
    if (two == 2) std::memcpy(static_cast<void*>(to + kCell<S>), from + c.columns.step * kCell<S>, kCell<S> * sizeof(S));
  }
}

// Planes of 56 x 56 or 32 x 32 places begin at the same place of the first cache, and push one another out of it where there
// are more than its ways. So what one tap reads is copied side by side, once for all units. The sums are the same.
constexpr int64_t kFewPlanes = 8, kMostPacked = 256 << 10;

template <typename S>
static void convolve_points(const Convolve<S>& c, int64_t tiles) {
  auto* const packed = static_cast<S*>(__builtin_alloca_with_align(static_cast<size_t>(2 * c.in_planes * kCell<S>) * sizeof(S), 512));
  for (int64_t i = 0; i < c.rows.size; ++i) {
    const Axis::Pair& row = c.rows.pairs[i];
    for (int64_t j = 0; j < c.columns.size; ++j) {
      const Axis::Pair& column = c.columns.pairs[j];
      const bool one = row.to - row.from == 1 && column.to - column.from == 1;
      const bool whole = one && c.columns.taps[column.from].first && (column.second < 0 || c.columns.taps[column.from].second);
      if (whole) pack_places(c, row, column, packed);
      for (int64_t tile = 0; tile < tiles; ++tile) {
        convolve_pair(c, c.weights + tile * c.in_planes * kTile * kPack<S>, tile, row, column, whole ? packed : nullptr);
      }
    }
  }
}

// Weights that stay in the first cache next to a few rows are gone through for each row, so that the rows stay too; larger ones
// for as many rows as the second cache holds of the input.
constexpr int64_t kSmallWeights = 24 << 10, kRowsInCache = 512 << 10;

template <typename S>
static void convolve(const Convolve<S>& c) {
  const int64_t tiles = (c.out_planes * kPack<S> + kTile - 1) / kTile;
  constexpr int64_t kSize = sizeof(S);
  if (c.taps == 1 && tiles > 1 && c.in_planes > kFewPlanes && 2 * c.in_planes * kCell<S> * kSize <= kMostPacked) {
    return convolve_points(c, tiles);
  }
  int64_t at_once = 1;
  if (tiles * c.taps * c.in_planes * kTile * kPack<S> * kSize > kSmallWeights) {
    const int64_t fit = kRowsInCache / (c.in_planes * c.in_width * c.rows.step * kCell<S> * kSize);
    if (fit > 1) at_once = fit;
  }
  for (int64_t first = 0; first < c.rows.size; first += at_once) {
    const int64_t last = first + at_once < c.rows.size ? first + at_once : c.rows.size;
    for (int64_t tile = 0; tile < tiles; ++tile) {
      for (int64_t i = first; i < last; ++i) convolve_row(c, tile, c.rows.pairs[i]);
    }
  }
}

// kChannels channels' and kVectors vectors of units' sums over all places, tap by tap.
template <int kChannels, int kVectors, typename S>
static void weight_gradient_of(const WeightGradient<S>& g, int64_t unit, int64_t channel) {
  using C = Cells<S>;
  const Window& w = *g.window;
  constexpr int64_t kPairs = kLane / kPack<S>;  // of a place's examples, that Cells::dot multiplies at once
  const int64_t dy_step = g.dy_channels * kPack<S>, x_step = g.x_channels * kPack<S>;
  for (int64_t v = 0; v < w.kernel_h; ++v) {
    for (int64_t h = 0; h < w.kernel_w; ++h) {
      vec sum[kChannels][kVectors];
#pragma GCC unroll 16
      for (int i = 0; i < kChannels; ++i) {
#pragma GCC unroll 2
        for (int j = 0; j < kVectors; ++j) sum[i][j] = splat(0);
      }
      // Output columns whose place of the input is inside.
      const int64_t before = w.padding_w - h, x0 = before > 0 ? (before + w.stride_w - 1) / w.stride_w : 0;
      const int64_t last = w.width - 1 + before;
      const int64_t x1 = last < 0 ? 0 : last / w.stride_w + 1 < w.out_width ? last / w.stride_w + 1 : w.out_width;
      for (int64_t y = g.y0; y < g.y1; ++y) {
        const int64_t in_y = y * w.stride_h - w.padding_h + v;
        if (in_y < 0 || in_y >= w.height) continue;
        const S* dy = g.dy + ((y - g.dy_row) * w.out_width + x0) * kPairs * dy_step + unit * kPack<S>;
        const S* x = g.x + ((in_y - g.x_row) * w.width + x0 * w.stride_w - before) * kPairs * x_step + channel * kPack<S>;
        for (int64_t o = x0; o < x1; ++o) {
          for (int64_t n = 0; n < kPairs; ++n) {
            typename C::data of_dy[kVectors];
#pragma GCC unroll 2
            for (int j = 0; j < kVectors; ++j) of_dy[j] = C::read(dy + j * kStep<S>);
#pragma GCC unroll 16
            for (int i = 0; i < kChannels; ++i) {
              const auto one = C::repeat(x + i * kPack<S>);
#pragma GCC unroll 2
              for (int j = 0; j < kVectors; ++j) sum[i][j] = C::dot(of_dy[j], one, sum[i][j]);
            }
            dy += dy_step;
            x += x_step;
          }
          x += (w.stride_w - 1) * kPairs * x_step;
        }
      }
      real* out = g.out + ((v * w.kernel_w + h) * g.channels + channel - g.channel) * g.units + unit - g.unit;
#pragma GCC unroll 16
      for (int i = 0; i < kChannels; ++i) {
#pragma GCC unroll 2
        for (int j = 0; j < kVectors; ++j) {
          real* to = out + i * g.units + j * kWidth;
          store(to, g.add ? load(to) + sum[i][j] : sum[i][j]);
        }
      }
    }
  }
}

template <typename S>
static void weight_gradient(const WeightGradient<S>& g) {
  if constexpr (kWidth == kLane) {
    if (g.units == 2 * kLane) return weight_gradient_of<8, 2>(g, g.unit, g.channel);
    if (g.channels == 16) return weight_gradient_of<16, 1>(g, g.unit, g.channel);
  }
  for (int64_t channel = g.channel; channel < g.channel + g.channels; channel += 8) {
    for (int64_t unit = g.unit; unit < g.unit + g.units; unit += kWidth) weight_gradient_of<8, 1>(g, unit, channel);
  }
}

// One place: (planes, kLane, kPack) -> (kLane / kPack, channels, kPack), 0 behind the last plane.
template <typename S>
static void turn_place(const S* in, int64_t plane, int64_t planes, int64_t channels, S* out) {
  std::memset(static_cast<void*>(out), 0, static_cast<size_t>(kLane * channels) * sizeof(S));
  for (int64_t c = 0; c < planes * kPack<S>; ++c) {
    const S* from = in + c / kPack<S> * plane + c % kPack<S>;
    for (int64_t n = 0; n < kLane; ++n) out[(n / kPack<S> * channels + c) * kPack<S> + n % kPack<S>] = from[n * kPack<S>];
  }
}

template <typename S>
static void turn(const S* in, int64_t planes, int64_t places, int64_t first, int64_t count, int64_t channels, S* out) {
  for (int64_t p = 0; p < count; ++p) turn_place(in + (first + p) * kCell<S>, places * kCell<S>, planes, channels, out + p * kLane * channels);
}
