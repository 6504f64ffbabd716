// The kernels of kernels/layers.h, written once over a vector type and compiled once per instruction set. The including
// file defines, inside its own namespace, what dense.inl wants of vectors, Cells of each storage type (cells.inl,
// pairs.inl) and, where it has a faster one than the plain one of convolution.inl, turn_place; then comes that file.

// f(its first channel, its offset, its size) for each plane, both in elements.
template <typename S, typename F>
static inline __attribute__((always_inline)) void over_planes(int64_t planes, int64_t places, F&& f) {
  for (int64_t plane = 0; plane < planes; ++plane) f(plane * kPack<S>, plane * places * kCell<S>, places * kCell<S>);
}

constexpr int64_t kTerms = 64;  // summed in `real` before they join a double

static inline double total(vec v) {
  double sum = 0;
  for (int64_t i = 0; i < kWidth; ++i) sum += static_cast<double>(v[i]);
  return sum;
}

// first[c], second[c] = sums over a plane of what term(i, lanes, channel of the plane, a, b) adds to a and b: i the
// offset in the plane, lanes that of the vector in its cell.
template <typename S, typename F>
static inline __attribute__((always_inline)) void two_sums(int64_t places, double* first, double* second, F&& term) {
  for (int64_t i = 0; i < kPack<S>; ++i) first[i] = second[i] = 0;
  for (int64_t place = 0; place < places; place += kTerms) {
    const int64_t end = place + kTerms < places ? place + kTerms : places;
    for (int64_t lanes = 0; lanes < kLane; lanes += kWidth) {
      Pack<S> a, b;
      for (int64_t i = 0; i < kPack<S>; ++i) a[i] = b[i] = splat(0);
      for (int64_t p = place; p < end; ++p) term(p * kCell<S> + lanes * kPack<S>, lanes, a, b);
      for (int64_t i = 0; i < kPack<S>; ++i) {
        first[i] += total(a[i]);
        second[i] += total(b[i]);
      }
    }
  }
}

// Lanes of a vector that are examples'.
static inline uint64_t bits_of(int64_t examples, int64_t lanes) {
  const int64_t left = examples - lanes;
  return left <= 0 ? 0 : left >= kWidth ? ~uint64_t{0} : (uint64_t{1} << left) - 1;
}

template <typename S>
static void moments(const S* x, int64_t planes, int64_t places, int64_t examples, double* shift, double* sum, double* square) {
  over_planes<S>(planes, places, [&](int64_t c, int64_t at, int64_t) {
    const S* plane = x + at;
    Pack<S> first, origin;
    load_cell<S>(plane, first);
    for (int64_t i = 0; i < kPack<S>; ++i) {
      origin[i] = splat(first[i][0]);
      shift[c + i] = static_cast<double>(first[i][0]);
    }
    two_sums<S>(places, sum + c, square + c, [&](int64_t at, int64_t lanes, Pack<S>& a, Pack<S>& b) {
      Pack<S> v;
      load_cell<S>(plane + at, v);
      for (int64_t i = 0; i < kPack<S>; ++i) {
        const vec d = examples < kLane ? keep(bits_of(examples, lanes), v[i] - origin[i]) : v[i] - origin[i];
        a[i] = a[i] + d;
        b[i] = fma(d, d, b[i]);
      }
    });
  });
}

template <typename S>
static inline __attribute__((always_inline)) void splat_all(const real* from, Pack<S>& to) {
  for (int64_t i = 0; i < kPack<S>; ++i) to[i] = splat(from[i]);
}

template <bool kOther, bool kRelu, typename S>
static void normalise_as(const S* x, const S* other, int64_t planes, int64_t places, const real* mean, const real* scale,
                         const real* bias, S* out) {
  over_planes<S>(planes, places, [&](int64_t c, int64_t at, int64_t size) {
    Pack<S> m, s, b;
    splat_all<S>(mean + c, m);
    splat_all<S>(scale + c, s);
    splat_all<S>(bias + c, b);
    for (int64_t i = at; i < at + size; i += kStep<S>) {
      Pack<S> v, o;
      load_cell<S>(x + i, v);
      if (kOther) load_cell<S>(other + i, o);
      for (int64_t j = 0; j < kPack<S>; ++j) {
        v[j] = fma(v[j] - m[j], s[j], b[j]);
        if (kOther) v[j] = v[j] + o[j];
        if (kRelu) v[j] = max0(v[j]);
      }
      store_cell<S>(out + i, v);
    }
  });
}

template <typename S>
static void normalise_images(const S* x, const S* other, int64_t planes, int64_t places, const real* mean, const real* scale,
                             const real* bias, bool relu, S* out) {
  if (other) {
    relu ? normalise_as<true, true>(x, other, planes, places, mean, scale, bias, out)
         : normalise_as<true, false>(x, other, planes, places, mean, scale, bias, out);
  } else {
    relu ? normalise_as<false, true>(x, other, planes, places, mean, scale, bias, out)
         : normalise_as<false, false>(x, other, planes, places, mean, scale, bias, out);
  }
}

template <bool kOther, bool kGate, typename S>
static void gate_as(const S* d, const S* other, const S* y, const S* x, int64_t planes, int64_t places, const real* mean,
                    S* g, double* sum, double* product) {
  over_planes<S>(planes, places, [&](int64_t c, int64_t at, int64_t) {
    Pack<S> m;
    splat_all<S>(mean + c, m);
    two_sums<S>(places, sum + c, product + c, [&](int64_t cell, int64_t, Pack<S>& a, Pack<S>& b) {
      const int64_t i = at + cell;
      Pack<S> v, o, gate, of_x;
      load_cell<S>(d + i, v);
      if (kOther) load_cell<S>(other + i, o);
      if (kGate) load_cell<S>(y + i, gate);
      load_cell<S>(x + i, of_x);
      for (int64_t j = 0; j < kPack<S>; ++j) {
        if (kOther) v[j] = v[j] + o[j];
        if (kGate) v[j] = gate[j] <= splat(0) ? splat(0) : v[j];
        a[j] = a[j] + v[j];
        b[j] = fma(v[j], of_x[j] - m[j], b[j]);
      }
      // Unchanged where there is one gradient and no ReLU: g may be d, which others read.
      if (kOther || kGate) store_cell<S>(g + i, v);
    });
  });
}

template <typename S>
static void gate(const S* d, const S* other, const S* y, const S* x, int64_t planes, int64_t places, const real* mean, S* g,
                 double* sum, double* product) {
  if (other) {
    y ? gate_as<true, true>(d, other, y, x, planes, places, mean, g, sum, product)
      : gate_as<true, false>(d, other, y, x, planes, places, mean, g, sum, product);
  } else {
    y ? gate_as<false, true>(d, other, y, x, planes, places, mean, g, sum, product)
      : gate_as<false, false>(d, other, y, x, planes, places, mean, g, sum, product);
  }
}

template <bool kAll, typename S>
static void normalise_backward_as(const S* g, const S* x, int64_t planes, int64_t places, int64_t examples, const real* mean,
                                  const real* scale, const real* constant, const real* slope, S* dx) {
  over_planes<S>(planes, places, [&](int64_t c, int64_t at, int64_t size) {
    Pack<S> m, s, k, l;
    splat_all<S>(mean + c, m);
    splat_all<S>(scale + c, s);
    splat_all<S>(constant + c, k);
    splat_all<S>(slope + c, l);
    for (int64_t i = at; i < at + size; i += kStep<S>) {
      Pack<S> v, of_x;
      load_cell<S>(g + i, v);
      load_cell<S>(x + i, of_x);
      for (int64_t j = 0; j < kPack<S>; ++j) {
        v[j] = (v[j] - k[j] - (of_x[j] - m[j]) * l[j]) * s[j];
        if (!kAll) v[j] = keep(bits_of(examples, (i - at) / kPack<S> % kLane), v[j]);
      }
      store_cell<S>(dx + i, v);
    }
  });
}

template <typename S>
static void normalise_backward(const S* g, const S* x, int64_t planes, int64_t places, int64_t examples, const real* mean,
                               const real* scale, const real* constant, const real* slope, S* dx) {
  examples < kLane ? normalise_backward_as<false>(g, x, planes, places, examples, mean, scale, constant, slope, dx)
                   : normalise_backward_as<true>(g, x, planes, places, examples, mean, scale, constant, slope, dx);
}

template <typename S>
static void channel_sums(const S* x, int64_t planes, int64_t places, double* sum) {
  over_planes<S>(planes, places, [&](int64_t c, int64_t at, int64_t) {
    double none[kPack<S>];
    two_sums<S>(places, sum + c, none, [&](int64_t i, int64_t, Pack<S>& a, Pack<S>&) {
      Pack<S> v;
      load_cell<S>(x + at + i, v);
      for (int64_t j = 0; j < kPack<S>; ++j) a[j] = a[j] + v[j];
    });
  });
}

template <typename S>
static void relu_images(const S* in, S* out, int64_t n) {
  for (int64_t i = 0; i < n; i += kStep<S>) {
    Pack<S> v;
    load_cell<S>(in + i, v);
    for (int64_t j = 0; j < kPack<S>; ++j) v[j] = max0(v[j]);
    store_cell<S>(out + i, v);
  }
}

template <typename S>
static void relu_backward_images(const S* y, const S* dy, S* dx, int64_t n) {
  for (int64_t i = 0; i < n; i += kStep<S>) {
    Pack<S> v, gate;
    load_cell<S>(dy + i, v);
    load_cell<S>(y + i, gate);
    for (int64_t j = 0; j < kPack<S>; ++j) v[j] = gate[j] <= splat(0) ? splat(0) : v[j];
    store_cell<S>(dx + i, v);
  }
}

template <typename S>
static void add_images(const S* a, const S* b, S* out, int64_t n) {
  for (int64_t i = 0; i < n; i += kStep<S>) {
    Pack<S> v, w;
    load_cell<S>(a + i, v);
    load_cell<S>(b + i, w);
    for (int64_t j = 0; j < kPack<S>; ++j) v[j] = v[j] + w[j];
    store_cell<S>(out + i, v);
  }
}

template <typename S>
static void drop(const S* in, const uint8_t* keep, real scale, S* out, int64_t n) {
  for (int64_t i = 0; i < n; i += kStep<S>) {
    Pack<S> v;
    load_cell<S>(in + i, v);
    for (int64_t j = 0; j < kPack<S>; ++j) {
      alignas(64) real factor[kWidth];
      for (int64_t l = 0; l < kWidth; ++l) factor[l] = keep[i + l * kPack<S> + j] ? scale : real(0);
      v[j] = v[j] * load(factor);
    }
    store_cell<S>(out + i, v);
  }
}

// f(offset of a cell of the input's plane) for the places of the window at (y, x) that lie inside.
template <typename S, typename F>
static inline __attribute__((always_inline)) void over_window(const Window& w, int64_t y, int64_t x, F&& f) {
  const int64_t top = y * w.stride_h - w.padding_h, left = x * w.stride_w - w.padding_w;
  for (int64_t h = top < 0 ? 0 : top; h < top + w.kernel_h && h < w.height; ++h) {
    for (int64_t v = left < 0 ? 0 : left; v < left + w.kernel_w && v < w.width; ++v) f((h * w.width + v) * kCell<S>);
  }
}

// f(offset of the input's plane, offset of the output's cell, y, x) for each plane, place and vector.
template <typename S, typename F>
static inline __attribute__((always_inline)) void over_outputs(const Window& w, int64_t planes, F&& f) {
  for (int64_t plane = 0; plane < planes; ++plane) {
    for (int64_t y = 0; y < w.out_height; ++y) {
      for (int64_t x = 0; x < w.out_width; ++x) {
        const int64_t out = ((plane * w.out_height + y) * w.out_width + x) * kCell<S>;
        for (int64_t l = 0; l < kCell<S>; l += kStep<S>) f(plane * w.height * w.width * kCell<S> + l, out + l, y, x);
      }
    }
  }
}

template <typename S>
static void max_pool(const Window& w, int64_t planes, const S* in, S* out) {
  const real lowest = -std::numeric_limits<real>::infinity();
  over_outputs<S>(w, planes, [&](int64_t from, int64_t to, int64_t y, int64_t x) {
    Pack<S> best;
    for (int64_t j = 0; j < kPack<S>; ++j) best[j] = splat(lowest);
    over_window<S>(w, y, x, [&](int64_t at) {
      Pack<S> v;
      load_cell<S>(in + from + at, v);
      for (int64_t j = 0; j < kPack<S>; ++j) best[j] = best[j] != best[j] ? best[j] : v[j] <= best[j] ? best[j] : v[j];
    });
    store_cell<S>(out + to, best);
  });
}

template <typename S>
static void max_pool_backward(const Window& w, int64_t planes, const S* in, const S* out, const S* dy, S* dx) {
  std::memset(static_cast<void*>(dx), 0, static_cast<size_t>(planes * w.height * w.width * kCell<S>) * sizeof(S));
  over_outputs<S>(w, planes, [&](int64_t from, int64_t to, int64_t y, int64_t x) {
    Pack<S> best, left;
    load_cell<S>(out + to, best);
    load_cell<S>(dy + to, left);
    over_window<S>(w, y, x, [&](int64_t at) {
      Pack<S> v, given;
      load_cell<S>(in + from + at, v);
      load_cell<S>(dx + from + at, given);
      for (int64_t j = 0; j < kPack<S>; ++j) {
        given[j] = given[j] + (v[j] == best[j] ? left[j] : splat(0));
        left[j] = v[j] == best[j] ? splat(0) : left[j];
      }
      store_cell<S>(dx + from + at, given);
    });
  });
}

template <typename S>
static void average_pool(const Window& w, int64_t planes, const S* in, S* out) {
  const vec share = splat(real(1) / static_cast<real>(w.kernel_h * w.kernel_w));
  over_outputs<S>(w, planes, [&](int64_t from, int64_t to, int64_t y, int64_t x) {
    Pack<S> sum, v;
    for (int64_t j = 0; j < kPack<S>; ++j) sum[j] = splat(0);
    over_window<S>(w, y, x, [&](int64_t at) {
      load_cell<S>(in + from + at, v);
      for (int64_t j = 0; j < kPack<S>; ++j) sum[j] = sum[j] + v[j];
    });
    for (int64_t j = 0; j < kPack<S>; ++j) sum[j] = sum[j] * share;
    store_cell<S>(out + to, sum);
  });
}

// The first and the last window along an axis that a place lies in; the last is before the first where there is none.
struct Windows {
  int64_t first, last;
};
static inline Windows windows_at(int64_t place, int64_t out, int64_t kernel, int64_t stride, int64_t padding) {
  const int64_t at = place + padding, last = at / stride;
  return {at < kernel ? 0 : (at - kernel) / stride + 1, last < out ? last : out - 1};
}

template <typename S>
static void average_pool_backward(const Window& w, int64_t planes, const S* dy, S* dx) {
  const vec share = splat(real(1) / static_cast<real>(w.kernel_h * w.kernel_w));
  const int64_t plane_in = w.height * w.width * kCell<S>, plane_out = w.out_height * w.out_width * kCell<S>;
  for (int64_t h = 0; h < w.height; ++h) {
    const Windows rows = windows_at(h, w.out_height, w.kernel_h, w.stride_h, w.padding_h);
    for (int64_t v = 0; v < w.width; ++v) {
      const Windows columns = windows_at(v, w.out_width, w.kernel_w, w.stride_w, w.padding_w);
      for (int64_t plane = 0; plane < planes; ++plane) {
        for (int64_t l = 0; l < kCell<S>; l += kStep<S>) {
          Pack<S> sum, one;
          for (int64_t j = 0; j < kPack<S>; ++j) sum[j] = splat(0);
          for (int64_t y = rows.first; y <= rows.last; ++y) {
            for (int64_t x = columns.first; x <= columns.last; ++x) {
              load_cell<S>(dy + plane * plane_out + (y * w.out_width + x) * kCell<S> + l, one);
              for (int64_t j = 0; j < kPack<S>; ++j) sum[j] = sum[j] + one[j];
            }
          }
          for (int64_t j = 0; j < kPack<S>; ++j) sum[j] = sum[j] * share;
          store_cell<S>(dx + plane * plane_in + (h * w.width + v) * kCell<S> + l, sum);
        }
      }
    }
  }
}

// f(first channel, how many there are, place, lanes, offset) for each vector.
template <typename S, typename F>
static inline __attribute__((always_inline)) void over_channels(int64_t channels, int64_t places, F&& f) {
  for (int64_t plane = 0; plane < planes_of<S>(channels); ++plane) {
    const int64_t left = channels - plane * kPack<S>, there = left < kPack<S> ? left : kPack<S>;
    for (int64_t lanes = 0; lanes < kLane; lanes += kWidth) {
      for (int64_t p = 0; p < places; ++p) f(plane * kPack<S>, there, p, lanes, (plane * places + p) * kCell<S> + lanes * kPack<S>);
    }
  }
}

template <typename S>
static void place_sums(const S* in, int64_t channels, int64_t places, real scale, real* out, int64_t row) {
  for (int64_t plane = 0; plane < planes_of<S>(channels); ++plane) {
    for (int64_t lanes = 0; lanes < kLane; lanes += kWidth) {
      Pack<S> sum, v;
      for (int64_t j = 0; j < kPack<S>; ++j) sum[j] = splat(0);
      for (int64_t p = 0; p < places; ++p) {
        load_cell<S>(in + (plane * places + p) * kCell<S> + lanes * kPack<S>, v);
        for (int64_t j = 0; j < kPack<S>; ++j) sum[j] = sum[j] + v[j];
      }
      for (int64_t j = 0; j < kPack<S> && plane * kPack<S> + j < channels; ++j) store(out + (plane * kPack<S> + j) * row + lanes, sum[j] * splat(scale));
    }
  }
}

template <typename S>
static void spread(const real* in, int64_t row, int64_t channels, int64_t places, real scale, S* out) {
  over_channels<S>(channels, places, [&](int64_t c, int64_t there, int64_t, int64_t lanes, int64_t at) {
    Pack<S> v;
    for (int64_t j = 0; j < kPack<S>; ++j) v[j] = j < there ? load(in + (c + j) * row + lanes) * splat(scale) : splat(0);
    store_cell<S>(out + at, v);
  });
}

template <typename S>
static void flatten(const S* in, int64_t channels, int64_t places, real* out, int64_t row) {
  over_channels<S>(channels, places, [&](int64_t c, int64_t there, int64_t p, int64_t lanes, int64_t at) {
    Pack<S> v;
    load_cell<S>(in + at, v);
    for (int64_t j = 0; j < there; ++j) store(out + ((c + j) * places + p) * row + lanes, v[j]);
  });
}

template <typename S>
static void unflatten(const real* in, int64_t row, int64_t channels, int64_t places, S* out) {
  over_channels<S>(channels, places, [&](int64_t c, int64_t there, int64_t p, int64_t lanes, int64_t at) {
    Pack<S> v;
    for (int64_t j = 0; j < kPack<S>; ++j) v[j] = j < there ? load(in + ((c + j) * places + p) * row + lanes) : splat(0);
    store_cell<S>(out + at, v);
  });
}

template <typename S>
static void narrow(const real* in, S* out, int64_t n) {
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) store(out + i, load(in + i));
  for (; i < n; ++i) {
    alignas(64) real edge[kWidth] = {in[i]};
    alignas(64) S rounded[kWidth];
    store(rounded, load(edge));
    out[i] = rounded[0];
  }
}

template <typename S>
static constexpr LayerKernels<S> kLayerTable = {
    kIsa, kWidth == kLane, convolve<S>, winograd_inputs<S>, winograd_gradients<S>, winograd_convolve<S>,
    winograd_weights<S>, winograd_taps<S>, weight_gradient<S>, turn<S>, moments<S>, normalise_images<S>, gate<S>,
    normalise_backward<S>, channel_sums<S>, relu_images<S>, relu_backward_images<S>, add_images<S>, drop<S>, max_pool<S>,
    max_pool_backward<S>, average_pool<S>, average_pool_backward<S>, place_sums<S>, spread<S>, flatten<S>, unflatten<S>, narrow<S>};
