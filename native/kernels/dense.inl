// The dense kernels, written once over a vector type and compiled once per instruction set.
// The including file defines, inside its own namespace: real, vec (kWidth reals), kWidth, kRows, kVectors, and the
// functions load, store, splat, fma, max0, keep (see dense_avx512.cc). Everything here has internal linkage:
// nothing compiled for one instruction set may be picked by the linker for another.

// Terms that are summed in registers before they join the total. A running sum's rounding errors grow with its length:
// pieces of 64 keep those of 784 features at less than half, which is what decides how often a ReLU near zero flips.
constexpr int64_t kPiece = 64;

// acc(r, v) += sum over `count` terms of a(r, i) * b(i, v): R x V accumulators stay in registers over the loop; one
// broadcast serves V multiply-adds and one load serves R.
template <int R, int V>
static inline __attribute__((always_inline)) void piece(const Product<real>& p, const real* a, const real* b,
                                                        int64_t count, vec (&acc)[R][V]) {
  for (int64_t i = 0; i < count; ++i) {
    vec bv[V];
    for (int v = 0; v < V; ++v) bv[v] = load(b + v * kWidth);
    for (int r = 0; r < R; ++r) {
      const vec av = splat(a[r * p.a_row]);
      for (int v = 0; v < V; ++v) acc[r][v] = fma(av, bv[v], acc[r][v]);
    }
    a += p.a_step;
    b += p.b_row;
  }
}

// total(r, v) = the pieces before the last. Not inlined: its accumulators must not compete for registers with tile's.
template <int R, int V>
static __attribute__((noinline)) void earlier_pieces(const Product<real>& p, const real* a, const real* b, int64_t count,
                                                     real* total) {
  for (int64_t i = 0; i < count; i += kPiece) {
    vec acc[R][V];
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < V; ++v) acc[r][v] = splat(0);
    }
    piece<R, V>(p, a + i * p.a_step, b + i * p.b_row, kPiece, acc);
    real* to = total;
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < V; ++v, to += kWidth) store(to, i == 0 ? acc[r][v] : load(to) + acc[r][v]);
    }
  }
}

// Rows [m, m + R) and `width` columns from j, at most V vectors of them.
template <int R, int V>
static inline __attribute__((always_inline)) void tile(const Product<real>& p, int64_t m, int64_t j, int64_t width) {
  alignas(64) real total[R * V * kWidth];
  const real* a = p.a + m * p.a_row;
  const real* b = p.b + j;
  const int64_t before = p.inner > kPiece ? (p.inner - 1) / kPiece * kPiece : 0;
  if (before > 0) earlier_pieces<R, V>(p, a, b, before, total);
  vec acc[R][V];
  real* out = p.out + m * p.out_row + j;
  const bool partial = width < V * kWidth;
  alignas(64) real edge[V * kWidth];
  for (int r = 0; r < R; ++r) {
    const vec start = splat(p.bias ? p.bias[m + r] : real(0));
    for (int v = 0; v < V; ++v) acc[r][v] = start;
    if (p.accumulate) {
      const real* from = out + r * p.out_row;
      if (partial) {
        for (int64_t x = 0; x < V * kWidth; ++x) edge[x] = x < width ? from[x] : real(0);
        from = edge;
      }
      for (int v = 0; v < V; ++v) acc[r][v] = acc[r][v] + load(from + v * kWidth);
    }
  }
  piece<R, V>(p, a + before * p.a_step, b + before * p.b_row, p.inner - before, acc);
  if (before > 0) {
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < V; ++v) acc[r][v] = load(total + (r * V + v) * kWidth) + acc[r][v];
    }
  }
  for (int r = 0; r < R; ++r) {
    if (p.relu) {
      for (int v = 0; v < V; ++v) acc[r][v] = max0(acc[r][v]);
    }
    real* to = out + r * p.out_row;
    if (partial) {
      for (int v = 0; v < V; ++v) store(edge + v * kWidth, acc[r][v]);
      for (int64_t x = 0; x < width; ++x) to[x] = edge[x];
    } else {
      for (int v = 0; v < V; ++v) store(to + v * kWidth, acc[r][v]);
    }
  }
}

template <int V>
static void column(const Product<real>& p, int64_t m0, int64_t m1, int64_t j, int64_t width) {
  int64_t m = m0;
  for (; m + kRows <= m1; m += kRows) tile<kRows, V>(p, m, j, width);
  switch (m1 - m) {
    case 5: tile<5, V>(p, m, j, width); break;
    case 4: tile<4, V>(p, m, j, width); break;
    case 3: tile<3, V>(p, m, j, width); break;
    case 2: tile<2, V>(p, m, j, width); break;
    case 1: tile<1, V>(p, m, j, width); break;
    default: break;
  }
}

static void product(const Product<real>& p, int64_t m0, int64_t m1, int64_t j0, int64_t j1) {
  int64_t j = j0;
  for (; j + kVectors * kWidth <= j1; j += kVectors * kWidth) column<kVectors>(p, m0, m1, j, kVectors * kWidth);
  // What is left of the columns, vector by vector: b is padded, so whole vectors may be read.
  while (j < j1) {
    const int64_t left = j1 - j;
    if (kVectors > 3 && left > 2 * kWidth) {
      column<3>(p, m0, m1, j, left < 3 * kWidth ? left : 3 * kWidth);
      j += 3 * kWidth;
    } else if (left > kWidth) {
      column<2>(p, m0, m1, j, left < 2 * kWidth ? left : 2 * kWidth);
      j += 2 * kWidth;
    } else {
      column<1>(p, m0, m1, j, left);
      j += kWidth;
    }
  }
}

static void transpose(const real* in, int64_t in_row, real* out, int64_t out_row, int64_t rows, int64_t columns) {
  int64_t r = 0;
  for (; r + kBlock <= rows; r += kBlock) {
    int64_t c = 0;
    for (; c + kBlock <= columns; c += kBlock) {
      transpose_block(in + r * in_row + c, in_row, out + c * out_row + r, out_row);
    }
    for (; c < columns; ++c) {
      for (int64_t x = r; x < r + kBlock; ++x) out[c * out_row + x] = in[x * in_row + c];
    }
  }
  for (; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) out[c * out_row + r] = in[r * in_row + c];
  }
}

static void normalise(const uint8_t* bytes, real* out, int64_t n, real scale, real shift) {
  const vec vs = splat(scale), vh = splat(shift);
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) store(out + i, fma(widen(bytes + i), vs, vh));
  if (i < n) {  // the same arithmetic for the tail: the same bits wherever an element stands
    uint8_t in[kWidth] = {};
    alignas(64) real edge[kWidth];
    for (int64_t x = i; x < n; ++x) in[x - i] = bytes[x];
    store(edge, fma(widen(in), vs, vh));
    for (int64_t x = i; x < n; ++x) out[x] = edge[x - i];
  }
}

static void relu_backward(const real* y, real* dy, int64_t n) {
  for (int64_t i = 0; i < n; i += kWidth) {
    const vec v = load(y + i);
    store(dy + i, v <= splat(0) ? splat(0) : load(dy + i));
  }
}

static void relu(const real* in, real* out, int64_t n) {
  for (int64_t i = 0; i < n; i += kWidth) store(out + i, max0(load(in + i)));
}

static void add(const real* a, const real* b, real* out, int64_t n) {
  for (int64_t i = 0; i < n; i += kWidth) store(out + i, load(a + i) + load(b + i));
}

static void row_sum(const real* in, int64_t in_row, real* out, int64_t rows, int64_t lanes) {
  for (int64_t r = 0; r < rows; ++r) {
    vec sum = splat(0);
    for (int64_t n = 0; n < lanes; n += kWidth) sum = sum + load(in + r * in_row + n);
    real total = 0;
    for (int64_t x = 0; x < kWidth; ++x) total += sum[x];
    out[r] = total;
  }
}

static int64_t cross_entropy(const real* logits, int64_t row, int64_t classes, int64_t n, const int32_t* labels,
                             real scale, real smoothing, real* losses, real* dlogits) {
  int64_t correct = 0;
  const real everywhere = smoothing / static_cast<real>(classes), at_label = scale * (1 - smoothing);
  for (int64_t first = 0; first < padded(n); first += kWidth) {
    vec top = load(logits + first);
    for (int64_t k = 1; k < classes; ++k) {
      const vec x = load(logits + k * row + first);
      top = x > top ? x : top;
    }
    vec sum = splat(0);
    for (int64_t k = 0; k < classes; ++k) sum = sum + exponential(load(logits + k * row + first) - top);
    for (int64_t x = 0; x < kWidth && first + x < n; ++x) {
      const int32_t label = labels[first + x];
      const real at = logits[label * row + first + x];
      losses[first + x] = logarithm(sum[x]) - (at - top[x]);
      if (smoothing != 0) {
        real others = 0;  // below the label's logit, of all classes
        for (int64_t k = 0; k < classes; ++k) others += at - logits[k * row + first + x];
        losses[first + x] += everywhere * others;
      }
      bool right = !(losses[first + x] != losses[first + x]);
      for (int64_t k = 0; k < classes && right; ++k) {
        const real other = logits[k * row + first + x];
        right = k < label ? other < at : other <= at;
      }
      correct += right;
    }
    if (!dlogits) continue;
    const vec share = splat(scale) / sum;
    for (int64_t k = 0; k < classes; ++k) {
      real* d = dlogits + k * row + first;
      store(d, exponential(load(logits + k * row + first) - top) * share);
      for (int64_t x = 0; x < kWidth; ++x) {
        if (first + x >= n) {
          d[x] = 0;
        } else if (labels[first + x] == k) {
          d[x] -= at_label;
        }
      }
      if (smoothing != 0) {
        for (int64_t x = 0; x < kWidth && first + x < n; ++x) d[x] -= scale * everywhere;
      }
    }
  }
  return correct;
}

static void sgd(const SgdStep<real>& s, real* w, const real* g, real* m, const uint64_t* mask, int64_t words) {
  const vec rate = splat(-s.learning_rate), mu = splat(s.momentum), decay = splat(s.weight_decay);
  for (int64_t word = 0; word < words; ++word) {
    const uint64_t bits = mask[word];
    for (int64_t x = 0; x < 64; x += kWidth) {
      const int64_t i = word * 64 + x;
      const vec weight = load(w + i);
      const vec gradient = fma(decay, weight, load(g + i));
      vec update = gradient;
      if (m) {
        const vec momentum = fma(mu, load(m + i), gradient);
        update = s.nesterov ? fma(mu, momentum, gradient) : momentum;
        store(m + i, keep(bits >> x, momentum));
      }
      store(w + i, keep(bits >> x, fma(rate, update, weight)));
    }
  }
}

static void adam(const AdamStep<real>& s, real* w, const real* g, real* m, real* v, const uint64_t* mask,
                 int64_t words) {
  const vec decay = splat(s.weight_decay), one_beta1 = splat(s.one_beta1), beta2 = splat(s.beta2);
  const vec one_beta2 = splat(s.one_beta2), size = splat(-s.step_size), epsilon = splat(s.epsilon);
  const vec inverse_root = splat(1 / s.root);
  for (int64_t word = 0; word < words; ++word) {
    const uint64_t bits = mask[word];
    for (int64_t x = 0; x < 64; x += kWidth) {
      const int64_t i = word * 64 + x;
      const vec weight = load(w + i);
      const vec gradient = fma(decay, weight, load(g + i));
      const vec old = load(m + i);
      const vec first = fma(one_beta1, gradient - old, old);
      const vec second = fma(one_beta2 * gradient, gradient, beta2 * load(v + i));
      const vec bottom = fma(root(second), inverse_root, epsilon);
      store(m + i, keep(bits >> x, first));
      store(v + i, keep(bits >> x, second));
      store(w + i, keep(bits >> x, fma(size, first / bottom, weight)));
    }
  }
}

static void rmsprop(const RmsPropStep<real>& s, real* w, const real* g, real* v, real* m, const uint64_t* mask, int64_t words) {
  const vec weight_decay = splat(s.weight_decay), decay = splat(s.decay), one_decay = splat(s.one_decay);
  const vec rate = splat(s.rate), momentum = splat(s.momentum), epsilon = splat(s.epsilon);
  for (int64_t word = 0; word < words; ++word) {
    const uint64_t bits = mask[word];
    for (int64_t x = 0; x < 64; x += kWidth) {
      const int64_t i = word * 64 + x;
      const vec weight = load(w + i);
      const vec gradient = fma(weight_decay, weight, load(g + i));
      const vec square = fma(one_decay * gradient, gradient, decay * load(v + i));
      vec update = rate * gradient / root(square + epsilon);
      if (m) {
        update = fma(momentum, load(m + i), update);
        store(m + i, keep(bits >> x, update));
      }
      store(v + i, keep(bits >> x, square));
      store(w + i, keep(bits >> x, weight - update));
    }
  }
}

static constexpr Kernels<real> kTable = {kIsa, product,       transpose,     normalise, relu_backward, relu,
                                         add,   row_sum, cross_entropy, sgd,       adam,      rmsprop};
