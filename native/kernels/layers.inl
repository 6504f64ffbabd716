// The kernels of kernels/layers.h, written once over a vector type and compiled once per instruction set. The including
// file defines, inside its own namespace, what dense.inl wants of vectors, and load and store of each storage type.

// What is left of a flat array or of the channels: fewer than kWidth elements.
template <typename S>
static inline vec load_some(const S* p, int64_t count) {
  alignas(64) S edge[kWidth] = {};
  for (int64_t x = 0; x < count; ++x) edge[x] = p[x];
  return load(edge);
}

template <typename S>
static inline void store_some(S* p, vec v, int64_t count) {
  alignas(64) S edge[kWidth];
  store(edge, v);
  for (int64_t x = 0; x < count; ++x) p[x] = edge[x];
}

// step(i, vectors of it) over [0, n): f(i, kWidth) for whole vectors, f(i, what is left) for the last.
template <typename F>
static inline __attribute__((always_inline)) void over_vectors(int64_t n, F&& f) {
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) f(i, kWidth);
  if (i < n) f(i, n - i);
}

template <typename S>
static inline __attribute__((always_inline)) vec load_up_to(const S* p, int64_t count) {
  return count == kWidth ? load(p) : load_some(p, count);
}

template <typename S>
static inline __attribute__((always_inline)) void store_up_to(S* p, vec v, int64_t count) {
  count == kWidth ? store(p, v) : store_some(p, v, count);
}

// f(i, p, count) for every vector of [0, total): element i belongs to position p = i % period.
template <typename F>
static inline __attribute__((always_inline)) void over_periods(int64_t total, int64_t period, F&& f) {
  int64_t first = 0;
  for (; first + period <= total; first += period) {
    for (int64_t p = 0; p < period; p += kWidth) f(first + p, p, kWidth);
  }
  over_vectors(total - first, [&](int64_t p, int64_t count) { f(first + p, p, count); });
}

constexpr int64_t kTerms = 64;    // summed in `real` before they join a double
constexpr int64_t kStripe = 4;    // vectors of positions whose sums stay in registers over the rows

static inline void join(double* total, vec part, int64_t count) {
  for (int64_t x = 0; x < count; ++x) total[x] += static_cast<double>(part[x]);
}

// two[0][p], two[1][p] += the sums over the rows of term(i, p, count, a, b)'s a and b, for V vectors of positions at p0.
template <int V, typename F>
static inline __attribute__((always_inline)) void sum_stripe(int64_t total, int64_t period, int64_t p0, double* first,
                                                             double* second, F&& term) {
  const int64_t rows = total / period;
  for (int64_t r = 0; r < rows; r += kTerms) {
    vec a[V], b[V];
    for (int v = 0; v < V; ++v) a[v] = b[v] = splat(0);
    const int64_t end = r + kTerms < rows ? r + kTerms : rows;
    for (int64_t row = r; row < end; ++row) {
      for (int v = 0; v < V; ++v) {
        const int64_t p = p0 + v * kWidth;
        term(row * period + p, p, kWidth, a[v], b[v]);
      }
    }
    for (int v = 0; v < V; ++v) {
      join(first + p0 + v * kWidth, a[v], kWidth);
      join(second + p0 + v * kWidth, b[v], kWidth);
    }
  }
}

// first[p], second[p] = sums over i = p, p + period, ... < total of the two that term adds to its last arguments.
template <typename F>
static inline __attribute__((always_inline)) void two_sums(int64_t total, int64_t period, double* first, double* second,
                                                           F&& term) {
  for (int64_t p = 0; p < period; ++p) first[p] = second[p] = 0;
  int64_t p = 0;
  for (; p + kStripe * kWidth <= period; p += kStripe * kWidth) sum_stripe<kStripe>(total, period, p, first, second, term);
  for (; p < period; p += kWidth) sum_stripe<1>(total, period, p, first, second, term);
  const int64_t done = total / period * period;
  over_vectors(total - done, [&](int64_t q, int64_t count) {
    vec a = splat(0), b = splat(0);
    term(done + q, q, count, a, b);
    join(first + q, a, count);
    join(second + q, b, count);
  });
}

template <typename S>
static void moments(const S* x, int64_t total, int64_t period, double* shift, double* sum, double* square) {
  for (int64_t p = 0; p < period; p += kWidth) {
    const int64_t count = total - p < kWidth ? total - p : kWidth;
    const vec v = count > 0 ? load_up_to(x + p, count) : splat(0);
    for (int64_t i = 0; i < kWidth; ++i) shift[p + i] = static_cast<double>(v[i]);
  }
  two_sums(total, period, sum, square, [&](int64_t i, int64_t p, int64_t count, vec& a, vec& b) {
    const vec d = load_up_to(x + i, count) - load_up_to(x + p, count);
    a = a + d;
    b = fma(d, d, b);
  });
}

template <bool kOther, bool kRelu, typename S>
static void normalise_as(const S* x, const S* other, int64_t total, int64_t period, const real* mean, const real* scale,
                         const real* bias, S* out) {
  over_periods(total, period, [&](int64_t i, int64_t p, int64_t count) {
    vec v = fma(load_up_to(x + i, count) - load(mean + p), load(scale + p), load(bias + p));
    if (kOther) v = v + load_up_to(other + i, count);
    store_up_to(out + i, kRelu ? max0(v) : v, count);
  });
}

template <typename S>
static void normalise_images(const S* x, const S* other, int64_t total, int64_t period, const real* mean, const real* scale,
                             const real* bias, bool relu, S* out) {
  if (other) {
    relu ? normalise_as<true, true>(x, other, total, period, mean, scale, bias, out)
         : normalise_as<true, false>(x, other, total, period, mean, scale, bias, out);
  } else {
    relu ? normalise_as<false, true>(x, other, total, period, mean, scale, bias, out)
         : normalise_as<false, false>(x, other, total, period, mean, scale, bias, out);
  }
}

template <bool kOther, bool kGate, typename S>
static void gate_as(const S* d, const S* other, const S* y, const S* x, int64_t total, int64_t period, const real* mean,
                    S* g, double* sum, double* product) {
  two_sums(total, period, sum, product, [&](int64_t i, int64_t p, int64_t count, vec& a, vec& b) {
    vec v = load_up_to(d + i, count);
    if (kOther) v = v + load_up_to(other + i, count);
    if (kGate) v = load_up_to(y + i, count) <= splat(0) ? splat(0) : v;
    // Unchanged where there is one gradient and no ReLU: g may be d, which others read.
    if (kOther || kGate) store_up_to(g + i, v, count);
    a = a + v;
    b = fma(v, load_up_to(x + i, count) - load(mean + p), b);
  });
}

template <typename S>
static void gate(const S* d, const S* other, const S* y, const S* x, int64_t total, int64_t period, const real* mean, S* g,
                 double* sum, double* product) {
  if (other) {
    y ? gate_as<true, true>(d, other, y, x, total, period, mean, g, sum, product)
      : gate_as<true, false>(d, other, y, x, total, period, mean, g, sum, product);
  } else {
    y ? gate_as<false, true>(d, other, y, x, total, period, mean, g, sum, product)
      : gate_as<false, false>(d, other, y, x, total, period, mean, g, sum, product);
  }
}

template <typename S>
static void normalise_backward(const S* g, const S* x, int64_t total, int64_t period, const real* mean, const real* scale,
                               const real* constant, const real* slope, S* dx) {
  over_periods(total, period, [&](int64_t i, int64_t p, int64_t count) {
    const vec centred = load_up_to(x + i, count) - load(mean + p);
    const vec v = load_up_to(g + i, count) - load(constant + p) - centred * load(slope + p);
    store_up_to(dx + i, v * load(scale + p), count);
  });
}

template <typename S>
static void relu_images(const S* in, S* out, int64_t n) {
  over_vectors(n, [&](int64_t i, int64_t count) { store_up_to(out + i, max0(load_up_to(in + i, count)), count); });
}

template <typename S>
static void relu_backward_images(const S* y, const S* dy, S* dx, int64_t n) {
  over_vectors(n, [&](int64_t i, int64_t count) {
    const vec v = load_up_to(y + i, count) <= splat(0) ? splat(0) : load_up_to(dy + i, count);
    store_up_to(dx + i, v, count);
  });
}

template <typename S>
static void add_images(const S* a, const S* b, S* out, int64_t n) {
  over_vectors(n, [&](int64_t i, int64_t count) {
    store_up_to(out + i, load_up_to(a + i, count) + load_up_to(b + i, count), count);
  });
}

template <typename S>
static void column_sums(const S* x, int64_t total, int64_t period, double* sum) {
  for (int64_t p = 0; p < period; ++p) sum[p] = 0;
  const int64_t rows = total / period;
  for (int64_t p = 0; p < period; p += kWidth) {
    for (int64_t r = 0; r < rows; r += kTerms) {
      vec a = splat(0);
      const int64_t end = r + kTerms < rows ? r + kTerms : rows;
      for (int64_t row = r; row < end; ++row) a = a + load(x + row * period + p);
      join(sum + p, a, kWidth);
    }
  }
  over_vectors(total - rows * period,
               [&](int64_t q, int64_t count) { join(sum + q, load_up_to(x + rows * period + q, count), count); });
}

// f(offset of an element's channels in the input) for the places of the window at (y, x) that lie inside.
template <typename F>
static inline __attribute__((always_inline)) void over_window(const Window& w, int64_t y, int64_t x, F&& f) {
  const int64_t top = y * w.stride_h - w.padding_h, left = x * w.stride_w - w.padding_w;
  for (int64_t h = top < 0 ? 0 : top; h < top + w.kernel_h && h < w.height; ++h) {
    for (int64_t v = left < 0 ? 0 : left; v < left + w.kernel_w && v < w.width; ++v) f((h * w.width + v) * w.channels);
  }
}

template <typename S>
static void max_pool(const Window& w, const S* in, S* out) {
  const real lowest = -std::numeric_limits<real>::infinity();
  for (int64_t y = 0; y < w.out_height; ++y) {
    for (int64_t x = 0; x < w.out_width; ++x) {
      S* to = out + (y * w.out_width + x) * w.channels;
      over_vectors(w.channels, [&](int64_t c, int64_t count) {
        vec best = splat(lowest);
        over_window(w, y, x, [&](int64_t at) {
          const vec v = load_up_to(in + at + c, count);
          best = best != best ? best : v <= best ? best : v;
        });
        store_up_to(to + c, best, count);
      });
    }
  }
}

template <typename S>
static void max_pool_backward(const Window& w, const S* in, const S* out, const S* dy, S* dx) {
  over_vectors(w.height * w.width * w.channels, [&](int64_t i, int64_t count) { store_up_to(dx + i, splat(0), count); });
  for (int64_t y = 0; y < w.out_height; ++y) {
    for (int64_t x = 0; x < w.out_width; ++x) {
      const int64_t place = (y * w.out_width + x) * w.channels;
      over_vectors(w.channels, [&](int64_t c, int64_t count) {
        const vec best = load_up_to(out + place + c, count);
        vec left = load_up_to(dy + place + c, count);
        over_window(w, y, x, [&](int64_t at) {
          const vec v = load_up_to(in + at + c, count);
          const vec given = v == best ? left : splat(0);
          left = v == best ? splat(0) : left;
          store_up_to(dx + at + c, load_up_to(dx + at + c, count) + given, count);
        });
      });
    }
  }
}

template <typename S>
static void widen_storage(const S* in, real* out, int64_t n) {
  over_vectors(n, [&](int64_t i, int64_t count) { store_up_to(out + i, load_up_to(in + i, count), count); });
}

template <typename S>
static void widen_add(const S* in, real* out, int64_t n) {
  over_vectors(n, [&](int64_t i, int64_t count) {
    store_up_to(out + i, load_up_to(out + i, count) + load_up_to(in + i, count), count);
  });
}

template <typename S>
static void narrow(const real* in, S* out, int64_t n) {
  over_vectors(n, [&](int64_t i, int64_t count) { store_up_to(out + i, load_up_to(in + i, count), count); });
}

template <typename S>
static constexpr LayerKernels<S> kLayerTable = {
    moments<S>,      normalise_images<S>, gate<S>,          normalise_backward<S>, relu_images<S>, relu_backward_images<S>,
    add_images<S>,   column_sums<S>,      max_pool<S>,      max_pool_backward<S>,  widen_storage<S>, widen_add<S>,
    narrow<S>};
