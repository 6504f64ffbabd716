// 3 x 3 convolutions with stride 1 by Winograd's minimal filtering, F(2 x 2, 3 x 3) (Lavin and Gray, arXiv 1509.09308): the
// 4 x 4 places that 2 x 2 outputs read are transformed, multiplied one by one with transformed weights and summed over the
// channels, and the sums are transformed back: 16 products in the place of 36. Examples are innermost, so that every
// transformation is one of whole vectors.
//
// Along one axis, of inputs d, weights g and outputs y:
//   d' = (d0 - d2, d1 + d2, d2 - d1, d1 - d3)    g' = (g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2)
//   y = (m0 + m1 + m2, m1 - m2 - m3), where m = d' * g'
// and of the gradients e of outputs, for those of the weights, what is linear is transposed:
//   e' = (e0, e0 + e1, e0 - e1, -e1)
//   dg = (s0 + (s1 + s2) / 2, (s1 - s2) / 2, (s1 + s2) / 2 + s3), where s = d' * e', summed over tiles and examples

// Row or column `at` of what the inputs become, of the two of the four that it is made of.
static constexpr int kWinogradFirst[4] = {0, 1, 2, 1}, kWinogradSecond[4] = {2, 2, 1, 3};
template <int kAt>
static inline __attribute__((always_inline)) vec winograd_input(vec first, vec second) {
  return kAt == 1 ? first + second : first - second;
}

template <int kColumn, typename S>
static inline __attribute__((always_inline)) void winograd_column(const Pack<S> (&d)[4], S* out) {
  Pack<S> v;
#pragma GCC unroll 2
  for (int64_t i = 0; i < kPack<S>; ++i) {
    v[i] = winograd_input<kColumn>(d[kWinogradFirst[kColumn]][i], d[kWinogradSecond[kColumn]][i]);
  }
  store_cell<S>(out, v);
}

// What lies outside of the image.
template <typename S>
alignas(64) static constexpr S kNothing[kCell<S>] = {};

// Row kRow of what the tiles of a plane become. Neighbours share two columns.
template <int kRow, typename S>
static void winograd_row(const WinogradTiles<S>& w, const S* plane, S* out) {
  const int64_t top = 2 * w.row - w.padding_h, left = 2 * w.first - w.padding_w;
  const auto line = [&](int64_t y) { return y >= 0 && y < w.height ? plane + y * w.width * w.in_place : nullptr; };
  const S *first = line(top + kWinogradFirst[kRow]), *second = line(top + kWinogradSecond[kRow]);
  const auto read = [&](int64_t x, Pack<S>& to) __attribute__((always_inline)) {
    const bool inside = x >= 0 && x < w.width;
    Pack<S> a, b;
    load_cell<S>(inside && first ? first + x * w.in_place : kNothing<S>, a);
    load_cell<S>(inside && second ? second + x * w.in_place : kNothing<S>, b);
#pragma GCC unroll 2
    for (int64_t i = 0; i < kPack<S>; ++i) to[i] = winograd_input<kRow>(a[i], b[i]);
  };
  Pack<S> d[4];
  read(left, d[0]);
  read(left + 1, d[1]);
  out += 4 * kRow * w.place;
  for (int64_t t = 0; t < w.count; ++t, out += w.tile) {
    read(left + 2 * t + 2, d[2]);
    read(left + 2 * t + 3, d[3]);
    winograd_column<0, S>(d, out);
    winograd_column<1, S>(d, out + w.place);
    winograd_column<2, S>(d, out + 2 * w.place);
    winograd_column<3, S>(d, out + 3 * w.place);
#pragma GCC unroll 2
    for (int64_t i = 0; i < kPack<S>; ++i) {
      d[0][i] = d[2][i];
      d[1][i] = d[3][i];
    }
  }
}

template <typename S>
static void winograd_inputs(const WinogradTiles<S>& w) {
  for (int64_t plane = 0; plane < w.planes; ++plane) {
    for (int64_t lanes = 0; lanes < kLane; lanes += kWidth) {
      const S* in = w.in + plane * w.in_plane + lanes * kPack<S>;
      S* out = w.out + plane * w.plane + lanes * kPack<S>;
      if (w.from <= 0 && w.to > 0) winograd_row<0>(w, in, out);
      if (w.from <= 1 && w.to > 1) winograd_row<1>(w, in, out);
      if (w.from <= 2 && w.to > 2) winograd_row<2>(w, in, out);
      if (w.from <= 3 && w.to > 3) winograd_row<3>(w, in, out);
    }
  }
}

// The same of dY: of a tile's two rows, and then of its two columns.
template <int kAt>
static inline __attribute__((always_inline)) vec winograd_gradient(vec first, vec second) {
  return kAt == 0 ? first : kAt == 1 ? first + second : kAt == 2 ? first - second : -second;
}

template <int kColumn, typename S>
static inline __attribute__((always_inline)) void winograd_gradient_column(const Pack<S>& first, const Pack<S>& second, S* out) {
  Pack<S> v;
#pragma GCC unroll 2
  for (int64_t i = 0; i < kPack<S>; ++i) v[i] = winograd_gradient<kColumn>(first[i], second[i]);
  store_cell<S>(out, v);
}

template <int kRow, typename S>
static void winograd_gradient_row(const WinogradTiles<S>& w, const S* plane, S* out) {
  const int64_t y = 2 * w.row;
  const S* const up = plane + y * w.width * w.in_place;
  const S* const down = y + 1 < w.height ? up + w.width * w.in_place : nullptr;
  const auto read = [&](int64_t x, Pack<S>& to) __attribute__((always_inline)) {
    const bool inside = x < w.width;
    Pack<S> a, b;
    load_cell<S>(inside ? up + x * w.in_place : kNothing<S>, a);
    load_cell<S>(inside && down ? down + x * w.in_place : kNothing<S>, b);
#pragma GCC unroll 2
    for (int64_t i = 0; i < kPack<S>; ++i) to[i] = winograd_gradient<kRow>(a[i], b[i]);
  };
  out += 4 * kRow * w.place;
  for (int64_t t = 0; t < w.count; ++t, out += w.tile) {
    Pack<S> first, second;
    read(2 * (w.first + t), first);
    read(2 * (w.first + t) + 1, second);
    winograd_gradient_column<0, S>(first, second, out);
    winograd_gradient_column<1, S>(first, second, out + w.place);
    winograd_gradient_column<2, S>(first, second, out + 2 * w.place);
    winograd_gradient_column<3, S>(first, second, out + 3 * w.place);
  }
}

template <typename S>
static void winograd_gradients(const WinogradTiles<S>& w) {
  for (int64_t plane = 0; plane < w.planes; ++plane) {
    for (int64_t lanes = 0; lanes < kLane; lanes += kWidth) {
      const S* in = w.in + plane * w.in_plane + lanes * kPack<S>;
      S* out = w.out + plane * w.plane + lanes * kPack<S>;
      if (w.from <= 0 && w.to > 0) winograd_gradient_row<0>(w, in, out);
      if (w.from <= 1 && w.to > 1) winograd_gradient_row<1>(w, in, out);
      if (w.from <= 2 && w.to > 2) winograd_gradient_row<2>(w, in, out);
      if (w.from <= 3 && w.to > 3) winograd_gradient_row<3>(w, in, out);
    }
  }
}

// The products of one tile, or two, with kTile units: sums (16, kTile, kLane) of each.
template <bool kTwo, typename S>
static void winograd_products(const WinogradOutputs<S>& w, const S* in, const S* weights, int64_t lanes, real* sums) {
  using C = Cells<S>;
  for (int64_t place = 0; place < kWinogradPlaces; ++place, in += w.place) {
    vec sum[2][kTile];
#pragma GCC unroll 8
    for (int64_t k = 0; k < kTile; ++k) sum[0][k] = sum[1][k] = splat(0);
    const S* x = in + lanes * kPack<S>;
    for (const S* const end = weights + w.in_planes * kTile * kPack<S>; weights != end;
         weights += kTile * kPack<S>, x += kCell<S>) {
      const auto a = C::read(x);
      auto b = a;
      if constexpr (kTwo) b = C::read(x + w.tile);
#pragma GCC unroll 8
      for (int64_t k = 0; k < kTile; ++k) {
        const auto one = C::repeat(weights + k * kPack<S>);
        sum[0][k] = C::dot(a, one, sum[0][k]);
        if constexpr (kTwo) sum[1][k] = C::dot(b, one, sum[1][k]);
      }
    }
    real* to = sums + place * kTile * kLane + lanes;
#pragma GCC unroll 8
    for (int64_t k = 0; k < kTile; ++k) {
      store(to + k * kLane, sum[0][k]);
      if constexpr (kTwo) store(to + (kWinogradPlaces * kTile + k) * kLane, sum[1][k]);
    }
  }
}

// From the sums of kTile units to 2 x 2 places of the output, as far as they are inside.
template <typename S>
static void winograd_outputs(const WinogradOutputs<S>& w, int64_t tile, int64_t column, const real* sums) {
  constexpr int64_t kPlanes = kTile / kPack<S>;
  const int64_t planes = w.out_planes - tile * kPlanes < kPlanes ? w.out_planes - tile * kPlanes : kPlanes;
  const int64_t y = 2 * w.row, x = 2 * column;
  const bool below = y + 1 < w.out_height, right = x + 1 < w.out_width;
  for (int64_t plane = 0; plane < planes; ++plane) {
    S* out = w.out + (((tile * kPlanes + plane) * w.out_height + y) * w.out_width + x) * kCell<S>;
    for (int64_t lanes = 0; lanes < kLane; lanes += kWidth, out += kStep<S>) {
      Pack<S> to[2][2];
#pragma GCC unroll 2
      for (int64_t i = 0; i < kPack<S>; ++i) {
        const int64_t unit = plane * kPack<S> + i;
        const real* from = sums + unit * kLane + lanes;
        const vec bias = splat(w.bias ? w.bias[tile * kTile + unit] : 0);
        vec up[4], down[4];
#pragma GCC unroll 4
        for (int64_t b = 0; b < 4; ++b) {
          const auto m = [&](int64_t a) { return load(from + (4 * a + b) * kTile * kLane); };
          const vec one = m(1), two = m(2);
          up[b] = m(0) + one + two;
          down[b] = one - two - m(3);
        }
        to[0][0][i] = up[0] + up[1] + up[2] + bias;
        to[0][1][i] = up[1] - up[2] - up[3] + bias;
        to[1][0][i] = down[0] + down[1] + down[2] + bias;
        to[1][1][i] = down[1] - down[2] - down[3] + bias;
      }
      store_cell<S>(out, to[0][0]);
      if (right) store_cell<S>(out + kCell<S>, to[0][1]);
      if (below) store_cell<S>(out + w.out_width * kCell<S>, to[1][0]);
      if (below && right) store_cell<S>(out + (w.out_width + 1) * kCell<S>, to[1][1]);
    }
  }
}

template <typename S>
static void winograd_convolve(const WinogradOutputs<S>& w) {
  // Of two tiles: they stay in the first cache.
  alignas(64) real sums[2 * kWinogradPlaces * kTile * kLane];
  const int64_t tiles = (w.out_planes * kPack<S> + kTile - 1) / kTile;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const S* weights = w.weights + tile * kWinogradPlaces * w.in_planes * kTile * kPack<S>;
    for (int64_t t = 0; t < w.count; t += 2) {
      const bool two = t + 1 < w.count;
      for (int64_t lanes = 0; lanes < kLane; lanes += kWidth) {
        if (two) {
          winograd_products<true>(w, w.in + t * w.tile, weights, lanes, sums);
        } else {
          winograd_products<false>(w, w.in + t * w.tile, weights, lanes, sums);
        }
      }
      winograd_outputs(w, tile, w.first + t, sums);
      if (two) winograd_outputs(w, tile, w.first + t + 1, sums + kWinogradPlaces * kTile * kLane);
    }
  }
}

// One axis of three weights.
static inline __attribute__((always_inline)) void winograd_axis(vec a, vec b, vec c, vec (&to)[4]) {
  const vec ends = a + c;
  to[0] = a;
  to[1] = (ends + b) * splat(0.5F);
  to[2] = (ends - b) * splat(0.5F);
  to[3] = c;
}

template <typename S>
static void winograd_weights(const real* taps, int64_t n, int64_t place, S* out) {
  const auto transform = [](const real* from, int64_t apart, S* to, int64_t to_apart) {
    vec rows[4][3];
#pragma GCC unroll 3
    for (int64_t x = 0; x < 3; ++x) {
      vec column[4];
      winograd_axis(load(from + x * apart), load(from + (3 + x) * apart), load(from + (6 + x) * apart), column);
#pragma GCC unroll 4
      for (int64_t y = 0; y < 4; ++y) rows[y][x] = column[y];
    }
#pragma GCC unroll 4
    for (int64_t y = 0; y < 4; ++y) {
      vec row[4];
      winograd_axis(rows[y][0], rows[y][1], rows[y][2], row);
#pragma GCC unroll 4
      for (int64_t x = 0; x < 4; ++x) store(to + (4 * y + x) * to_apart, row[x]);
    }
  };
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) transform(taps + i, n, out + i, place);
  if (i == n) return;
  alignas(64) real edge[9 * kWidth] = {};
  alignas(64) S transformed[kWinogradPlaces * kWidth];
  const int64_t left = n - i;
  for (int64_t tap = 0; tap < 9; ++tap) {
    for (int64_t j = 0; j < left; ++j) edge[tap * kWidth + j] = taps[tap * n + i + j];
  }
  transform(edge, kWidth, transformed, kWidth);
  for (int64_t p = 0; p < kWinogradPlaces; ++p) {
    for (int64_t j = 0; j < left; ++j) out[p * place + i + j] = transformed[p * kWidth + j];
  }
}

// One axis of three weights' gradients.
static inline __attribute__((always_inline)) void winograd_axis_back(vec s0, vec s1, vec s2, vec s3, vec (&to)[3]) {
  const vec half = (s1 + s2) * splat(0.5F);
  to[0] = s0 + half;
  to[1] = (s1 - s2) * splat(0.5F);
  to[2] = half + s3;
}

// n: whole vectors.
static void winograd_taps_of(const real* sums, int64_t n, real* taps) {
  for (int64_t i = 0; i < n; i += kWidth) {
    vec columns[3][4];
#pragma GCC unroll 4
    for (int64_t x = 0; x < 4; ++x) {
      const auto s = [&](int64_t y) { return load(sums + (4 * y + x) * n + i); };
      vec column[3];
      winograd_axis_back(s(0), s(1), s(2), s(3), column);
#pragma GCC unroll 3
      for (int64_t y = 0; y < 3; ++y) columns[y][x] = column[y];
    }
#pragma GCC unroll 3
    for (int64_t y = 0; y < 3; ++y) {
      vec row[3];
      winograd_axis_back(columns[y][0], columns[y][1], columns[y][2], columns[y][3], row);
#pragma GCC unroll 3
      for (int64_t x = 0; x < 3; ++x) store(taps + (3 * y + x) * n + i, row[x]);
    }
  }
}

template <typename S>
static void winograd_taps(const Real<S>* sums, int64_t n, Real<S>* taps) {
  winograd_taps_of(sums, n, taps);
}
