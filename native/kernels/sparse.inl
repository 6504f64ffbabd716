// The kernels of kernels/sparse.h, over vectors and Cells as convolution.inl.

// kCount places of one plane's units: the sums stay in registers over all entries. Few places take all their lanes at once,
// so that sums that do not wait for each other fill the pipeline.
template <int kCount, typename S>
static inline __attribute__((always_inline)) void sparse_places(const SparseConvolve<S>& c, const PlaceRun& run) {
  using C = Cells<S>;
  constexpr int kAll = kLane / kWidth;
  constexpr int kVectors = kPack<S> * kCount * kAll <= 8 ? kAll : 1;
  constexpr int kSums = kCount * kVectors;
  constexpr int64_t kVector = kWidth * kPack<S>;  // elements
  const int64_t in_step = run.in_step * kCell<S>, out_step = run.out_step * kCell<S>;
  // All rows of taps: then the columns' entries lie behind one another.
  const bool whole = run.y_from == 0 && run.y_to == c.kernel_h;
  for (int64_t unit = 0; unit < c.units; unit += kPack<S>) {
    for (int64_t lanes = 0; lanes < kCell<S>; lanes += kVectors * kVector) {
      const S* in = c.in + run.in * kCell<S> + lanes;
      vec sum[kPack<S>][kSums];
#pragma GCC unroll 2
      for (int64_t i = 0; i < kPack<S>; ++i) {
        const bool there = unit + i < c.units;
        const vec start = c.bias && there ? splat(c.bias[unit + i]) : splat(0);
#pragma GCC unroll 8
        for (int s = 0; s < kSums; ++s) sum[i][s] = start;
        if (!there) continue;
        const int32_t* starts = c.starts + (unit + i) * c.kernel_w * c.kernel_h;
        for (int64_t x = run.x_from; x < run.x_to; ++x) {
          const Entry<S>* e = c.entries + starts[x * c.kernel_h + run.y_from];
          const int64_t column = whole ? run.x_to - 1 : x;
          const Entry<S>* const end = c.entries + starts[column * c.kernel_h + run.y_to];
          for (; e != end; ++e) {
            const auto weight = C::repeat(e->weight);
            const S* from = in + e->offset;
#pragma GCC unroll 8
            for (int s = 0; s < kSums; ++s) {
              sum[i][s] = C::dot(C::read(from + s / kVectors * in_step + s % kVectors * kVector), weight, sum[i][s]);
            }
          }
          if (whole) break;
        }
      }
      S* out = c.out + (unit / kPack<S> * c.out_plane + run.out) * kCell<S> + lanes;
#pragma GCC unroll 8
      for (int s = 0; s < kSums; ++s) {
        Pack<S> v;
#pragma GCC unroll 2
        for (int64_t i = 0; i < kPack<S>; ++i) v[i] = sum[i][s];
        store_cell<S>(out + s / kVectors * out_step + s % kVectors * kVector, v);
      }
    }
  }
}

template <typename S>
static void sparse_convolve(const SparseConvolve<S>& c) {
  for (int64_t i = 0; i < c.number; ++i) {
    const PlaceRun& run = c.runs[i];
    switch (run.count) {
      case 1: sparse_places<1>(c, run); break;
      case 2: sparse_places<2>(c, run); break;
      case 3: sparse_places<3>(c, run); break;
      case 4: sparse_places<4>(c, run); break;
      case 5: sparse_places<5>(c, run); break;
      case 6: sparse_places<6>(c, run); break;
      case 7: sparse_places<7>(c, run); break;
      default: sparse_places<8>(c, run); break;
    }
  }
}

// kCount weights of one unit share what is read of dy.
template <int kCount, typename S>
static inline __attribute__((always_inline)) void sparse_gradients(const SparseWeightGradient<S>& g, const S* dy, int64_t weight) {
  using C = Cells<S>;
  constexpr int64_t kElements = kWidth * kPack<S>;
  vec sum[8];
  const S* x[kCount];
#pragma GCC unroll 8
  for (int w = 0; w < 8; ++w) sum[w] = splat(0);
#pragma GCC unroll 8
  for (int w = 0; w < kCount; ++w) x[w] = g.x + g.offsets[weight + w];
  for (int64_t row = 0; row < g.rows; ++row) {
    for (int64_t i = 0; i < g.row; i += kElements) {
      const auto of_dy = C::read(dy + row * g.dy_row + i);
#pragma GCC unroll 8
      for (int w = 0; w < kCount; ++w) sum[w] = C::dot(C::read(x[w] + row * g.x_row + i), of_dy, sum[w]);
    }
  }
  real all[8];
  sums_of_lanes(sum, all);
#pragma GCC unroll 8
  for (int w = 0; w < kCount; ++w) g.out[weight + w] = g.add ? g.out[weight + w] + all[w] : all[w];
}

template <typename S>
static void sparse_weight_gradient(const SparseWeightGradient<S>& g) {
  for (int64_t unit = g.unit; unit < g.last; ++unit) {
    const S* dy = g.dy + unit * g.dy_unit;
    int64_t w = g.starts[unit];
    const int64_t end = g.starts[unit + 1];
    for (; w + 8 <= end; w += 8) sparse_gradients<8>(g, dy, w);
    switch (end - w) {
      case 1: sparse_gradients<1>(g, dy, w); break;
      case 2: sparse_gradients<2>(g, dy, w); break;
      case 3: sparse_gradients<3>(g, dy, w); break;
      case 4: sparse_gradients<4>(g, dy, w); break;
      case 5: sparse_gradients<5>(g, dy, w); break;
      case 6: sparse_gradients<6>(g, dy, w); break;
      case 7: sparse_gradients<7>(g, dy, w); break;
      default: break;
    }
  }
}

template <typename S>
static inline void split_cell(const S* cell, int64_t apart, S* out) {
  for (int64_t n = 0; n < kLane; ++n) {
    for (int64_t i = 0; i < kPack<S>; ++i) out[i * apart + n] = cell[n * kPack<S> + i];
  }
}

template <typename S>
static void sparse_split(const S* plane, int64_t place, int64_t step, int64_t count, int64_t apart, S* out) {
  for (int64_t p = 0; p < count; ++p, place += step) split_cell(plane + place * kCell<S>, apart, out + p * kLane);
}

template <typename S>
static constexpr SparseKernels<S> kSparseTable = {kIsa, sparse_convolve<S>, sparse_weight_gradient<S>, sparse_split<S>};
