// The dense kernels of every instruction set that this CPU has, against plain loops in double precision, over random
// shapes; and that cutting the work otherwise never changes a bit.
#include <cmath>
#include <limits>

#include "check.h"
#include "kernels/kernels.h"
#include "numbers.h"

using namespace lth;
using test::Numbers;

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// f(kernels, error limit) for the double table and the float tables that can run here.
template <typename F>
void each_table(F&& f) {
  f(kernels_f64(), 1e-13);
  for (Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512}) {
    if (available(isa)) f(kernels_f32(isa), 2e-6);
  }
}

#define CHECK_CLOSE(a, b, limit, scale)                                                                  \
  do {                                                                                                   \
    const double x_ = (a), y_ = (b);                                                                     \
    if (!(std::fabs(x_ - y_) <= (limit) * (scale)))                                                      \
      ::lth::test::complain(__FILE__, __LINE__, #a " is " + std::to_string(x_) + ", not " + std::to_string(y_)); \
  } while (0)

bool is_positive_zero(double x) { return x == 0 && !std::signbit(x); }

template <typename T>
void check_product(const Kernels<T>& kernels, double limit, Numbers& numbers) {
  const int64_t rows = 1 + numbers.below(30), inner = 1 + numbers.below(80), columns = 1 + numbers.below(150);
  const bool transposed = numbers.below(2), with_bias = numbers.below(2), relu = numbers.below(2),
             accumulate = numbers.below(2);
  const int64_t stride = padded(columns) + kLane * numbers.below(2);
  const auto a = numbers.normals<T>(rows * inner), b = numbers.normals<T>(inner * stride), bias = numbers.normals<T>(rows);
  const auto before = numbers.normals<T>(rows * stride);
  auto out = before;
  const Product<T> p = {.a = a.data(),
                        .a_row = transposed ? 1 : inner,
                        .a_step = transposed ? rows : 1,
                        .b = b.data(),
                        .b_row = stride,
                        .inner = inner,
                        .out = out.data(),
                        .out_row = stride,
                        .bias = with_bias ? bias.data() : nullptr,
                        .relu = relu,
                        .accumulate = accumulate};
  kernels.product(p, 0, rows, 0, columns);
  for (int64_t m = 0; m < rows; ++m) {
    for (int64_t j = 0; j < stride; ++j) {
      const double got = static_cast<double>(out[m * stride + j]);
      if (j >= columns) {
        CHECK_EQUAL(got, static_cast<double>(before[m * stride + j]));
        continue;
      }
      double sum = (with_bias ? bias[m] : 0) + (accumulate ? before[m * stride + j] : 0), size = std::fabs(sum) + 1;
      for (int64_t i = 0; i < inner; ++i) {
        const double term = static_cast<double>(a[m * p.a_row + i * p.a_step]) * b[i * stride + j];
        sum += term;
        size += std::fabs(term);
      }
      CHECK_CLOSE(got, relu ? std::max(sum, 0.0) : sum, limit, size);
    }
  }
  // The same in tasks of other shapes.
  auto cut = before;
  Product<T> q = p;
  q.out = cut.data();
  const int64_t m_cut = numbers.below(rows + 1);
  const int64_t j_cut = std::min(columns, kLane * numbers.below(columns / kLane + 1));
  for (const auto& [m0, m1] : {std::pair{m_cut, rows}, std::pair{int64_t{0}, m_cut}}) {
    kernels.product(q, m0, m1, j_cut, columns);
    if (j_cut > 0) kernels.product(q, m0, m1, 0, j_cut);
  }
  CHECK(cut == out);
}

template <typename T>
void check_cross_entropy(const Kernels<T>& kernels, double limit, Numbers& numbers) {
  const int64_t classes = 1 + numbers.below(20), n = 1 + numbers.below(70), row = padded(n);
  auto logits = numbers.normals<T>(classes * row);
  for (T& x : logits) x *= static_cast<T>(10);
  std::vector<int32_t> labels(static_cast<size_t>(n));
  for (int32_t& label : labels) label = static_cast<int32_t>(numbers.below(classes));
  const bool tie = classes > 1 && numbers.below(2);
  if (tie) {  // the first of equals is the answer
    for (int64_t k = 0; k < classes; ++k) logits[k * row] = static_cast<T>(1);
    labels[0] = 1;
  }
  const T scale = T(1) / static_cast<T>(n);
  const T smoothing = numbers.below(2) ? T(0.125) : T(0);
  const auto spread = static_cast<double>(smoothing) / static_cast<double>(classes);
  std::vector<T> losses(static_cast<size_t>(row)), gradient(static_cast<size_t>(classes * row), T(7));
  const int64_t correct = kernels.cross_entropy(logits.data(), row, classes, n, labels.data(), scale, smoothing, losses.data(), gradient.data());
  int64_t right = 0;
  for (int64_t i = 0; i < row; ++i) {
    if (i >= n) {
      for (int64_t k = 0; k < classes; ++k) CHECK(is_positive_zero(static_cast<double>(gradient[k * row + i])));
      continue;
    }
    int64_t best = 0;
    for (int64_t k = 1; k < classes; ++k) {
      if (logits[k * row + i] > logits[best * row + i]) best = k;
    }
    right += best == labels[i];
    const double top = static_cast<double>(logits[best * row + i]);
    double sum = 0;
    for (int64_t k = 0; k < classes; ++k) sum += std::exp(static_cast<double>(logits[k * row + i]) - top);
    double loss = 0;
    for (int64_t k = 0; k < classes; ++k) {
      const double target = spread + (labels[i] == k ? 1 - static_cast<double>(smoothing) : 0);
      loss += target * (std::log(sum) + top - static_cast<double>(logits[k * row + i]));
    }
    CHECK_CLOSE(static_cast<double>(losses[i]), loss, limit, 1 + loss);
    for (int64_t k = 0; k < classes; ++k) {
      const double share = std::exp(static_cast<double>(logits[k * row + i]) - top) / sum - spread -
                           (labels[i] == k ? 1 - static_cast<double>(smoothing) : 0);
      CHECK_CLOSE(static_cast<double>(gradient[k * row + i]), share * static_cast<double>(scale), limit, static_cast<double>(scale));
    }
  }
  CHECK_EQUAL(correct, right);
  CHECK_EQUAL(kernels.cross_entropy(logits.data(), row, classes, n, labels.data(), scale, smoothing, losses.data(), nullptr), right);
  for (int64_t k = 0; k < classes; ++k) logits[k * row] = static_cast<T>(kNaN);
  const int64_t without = kernels.cross_entropy(logits.data(), row, classes, n, labels.data(), scale, smoothing, losses.data(), nullptr);
  CHECK(std::isnan(static_cast<double>(losses[0])));
  CHECK(without == right || without == right - 1);
  if (n == 1) CHECK_EQUAL(without, 0);
}

struct Arenas {
  int64_t words;
  std::vector<uint64_t> mask;
  bool kept(int64_t i) const { return mask[i / 64] >> (i % 64) & 1; }
};

Arenas random_mask(Numbers& numbers) {
  Arenas a{1 + numbers.below(5), {}};
  for (int64_t i = 0; i < a.words; ++i) a.mask.push_back(static_cast<uint64_t>(numbers.below(int64_t{1} << 62)) << numbers.below(3));
  a.mask[0] = numbers.below(2) ? ~uint64_t{0} : 0;
  return a;
}

// What a pruned place must never let through.
template <typename T>
void poison(std::vector<T>& gradients, const Arenas& arenas, Numbers& numbers) {
  for (size_t i = 0; i < gradients.size(); ++i) {
    if (!arenas.kept(static_cast<int64_t>(i))) gradients[i] = static_cast<T>(numbers.below(2) ? kNaN : -kInfinity);
  }
}

template <typename T>
void check_sgd(const Kernels<T>& kernels, double limit, Numbers& numbers) {
  const Arenas arenas = random_mask(numbers);
  const int64_t n = arenas.words * 64;
  const bool stateful = numbers.below(3) > 0;
  const SgdStep<T> s = {T(0.1), T(0.9), T(0.01), stateful && numbers.below(2) == 1};
  const auto w0 = numbers.normals<T>(n), m0 = numbers.normals<T>(n);
  auto g = numbers.normals<T>(n);
  poison(g, arenas, numbers);
  auto w = w0, m = m0;
  kernels.sgd(s, w.data(), g.data(), stateful ? m.data() : nullptr, arenas.mask.data(), arenas.words);
  for (int64_t i = 0; i < n; ++i) {
    if (!arenas.kept(i)) {
      CHECK(is_positive_zero(static_cast<double>(w[i])));
      if (stateful) CHECK(is_positive_zero(static_cast<double>(m[i])));
      continue;
    }
    const double gradient = g[i] + double{s.weight_decay} * w0[i];
    const double momentum = stateful ? double{s.momentum} * m0[i] + gradient : gradient;
    const double update = s.nesterov ? gradient + double{s.momentum} * momentum : momentum;
    CHECK_CLOSE(static_cast<double>(w[i]), w0[i] - double{s.learning_rate} * update, limit, 10);
    if (stateful) CHECK_CLOSE(static_cast<double>(m[i]), momentum, limit, 10);
  }
}

template <typename T>
void check_adam(const Kernels<T>& kernels, double limit, Numbers& numbers) {
  const Arenas arenas = random_mask(numbers);
  const int64_t n = arenas.words * 64, t = 1 + numbers.below(100);
  const double rate = 1.2e-3, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, decay = numbers.below(2) ? 0.01 : 0;
  const AdamStep<T> s = {.step_size = static_cast<T>(rate / (1 - std::pow(beta1, t))),
                         .one_beta1 = static_cast<T>(1 - beta1),
                         .beta2 = static_cast<T>(beta2),
                         .one_beta2 = static_cast<T>(1 - beta2),
                         .epsilon = static_cast<T>(epsilon),
                         .weight_decay = static_cast<T>(decay),
                         .root = static_cast<T>(std::sqrt(1 - std::pow(beta2, t)))};
  const auto w0 = numbers.normals<T>(n), m0 = numbers.normals<T>(n);
  auto v0 = numbers.normals<T>(n);
  for (T& x : v0) x *= x;
  auto g = numbers.normals<T>(n);
  poison(g, arenas, numbers);
  auto w = w0, m = m0, v = v0;
  kernels.adam(s, w.data(), g.data(), m.data(), v.data(), arenas.mask.data(), arenas.words);
  for (int64_t i = 0; i < n; ++i) {
    if (!arenas.kept(i)) {
      for (T x : {w[i], m[i], v[i]}) CHECK(is_positive_zero(static_cast<double>(x)));
      continue;
    }
    const double gradient = g[i] + decay * w0[i];
    const double first = beta1 * m0[i] + (1 - beta1) * gradient, second = beta2 * v0[i] + (1 - beta2) * gradient * gradient;
    const double bottom = std::sqrt(second / (1 - std::pow(beta2, t))) + epsilon;
    CHECK_CLOSE(static_cast<double>(w[i]), w0[i] - rate * (first / (1 - std::pow(beta1, t))) / bottom, limit, 1);
    CHECK_CLOSE(static_cast<double>(m[i]), first, limit, 10);
    CHECK_CLOSE(static_cast<double>(v[i]), second, limit, 10);
  }
}

template <typename T>
void check_rmsprop(const Kernels<T>& kernels, double limit, Numbers& numbers) {
  const Arenas arenas = random_mask(numbers);
  const int64_t n = arenas.words * 64;
  const bool stateful = numbers.below(3) > 0;
  const double rate = 0.01, momentum = 0.9, decay = 0.95, epsilon = numbers.below(2) ? 1 : 1e-3, weight_decay = numbers.below(2) ? 0.01 : 0;
  const RmsPropStep<T> s = {.rate = static_cast<T>(rate),
                            .momentum = static_cast<T>(momentum),
                            .decay = static_cast<T>(decay),
                            .one_decay = static_cast<T>(1 - decay),
                            .epsilon = static_cast<T>(epsilon),
                            .weight_decay = static_cast<T>(weight_decay)};
  const auto w0 = numbers.normals<T>(n), m0 = numbers.normals<T>(n);
  auto v0 = numbers.normals<T>(n);
  for (T& x : v0) x *= x;
  auto g = numbers.normals<T>(n);
  poison(g, arenas, numbers);
  auto w = w0, m = m0, v = v0;
  kernels.rmsprop(s, w.data(), g.data(), v.data(), stateful ? m.data() : nullptr, arenas.mask.data(), arenas.words);
  for (int64_t i = 0; i < n; ++i) {
    if (!arenas.kept(i)) {
      for (T x : {w[i], v[i], stateful ? m[i] : T(0)}) CHECK(is_positive_zero(static_cast<double>(x)));
      continue;
    }
    const double gradient = g[i] + weight_decay * w0[i], square = decay * v0[i] + (1 - decay) * gradient * gradient;
    const double update = (stateful ? momentum * m0[i] : 0) + rate * gradient / std::sqrt(square + epsilon);
    CHECK_CLOSE(static_cast<double>(w[i]), w0[i] - update, limit, 10);
    CHECK_CLOSE(static_cast<double>(v[i]), square, limit, 10);
    if (stateful) CHECK_CLOSE(static_cast<double>(m[i]), update, limit, 10);
  }
}

}  // namespace

TEST("products of any shape, orientation and epilogue are right, and the same bits however they are cut") {
  Numbers numbers(1);
  each_table([&](const auto& kernels, double limit) {
    for (int i = 0; i < 300; ++i) check_product(kernels, limit, numbers);
  });
}

TEST("a product's ReLU lets NaN through") {
  each_table([&]<typename T>(const Kernels<T>& kernels, double) {
    const std::vector<T> a = {static_cast<T>(kNaN)}, b(kLane, T(1));
    std::vector<T> out(kLane);
    kernels.product({a.data(), 1, 1, b.data(), kLane, 1, out.data(), kLane, nullptr, true, false}, 0, 1, 0, kLane);
    for (T x : out) CHECK(std::isnan(static_cast<double>(x)));
  });
}

TEST("cross-entropy, its gradient and the count of right answers, ties and NaN included") {
  Numbers numbers(2);
  each_table([&](const auto& kernels, double limit) {
    for (int i = 0; i < 200; ++i) check_cross_entropy(kernels, limit, numbers);
  });
}

TEST("optimiser steps follow their formulas; what is pruned becomes +0 whatever its gradient") {
  Numbers numbers(3);
  each_table([&](const auto& kernels, double limit) {
    for (int i = 0; i < 100; ++i) {
      check_sgd(kernels, limit, numbers);
      check_adam(kernels, limit, numbers);
      check_rmsprop(kernels, limit, numbers);
    }
  });
}

TEST("transposition moves every element, and nothing else") {
  Numbers numbers(4);
  each_table([&]<typename T>(const Kernels<T>& kernels, double) {
    for (int i = 0; i < 100; ++i) {
      const int64_t rows = 1 + numbers.below(40), columns = 1 + numbers.below(40);
      const int64_t in_row = columns + numbers.below(9), out_row = rows + numbers.below(9);
      const auto in = numbers.normals<T>(rows * in_row);
      std::vector<T> out(static_cast<size_t>(columns * out_row), T(-1));
      kernels.transpose(in.data(), in_row, out.data(), out_row, rows, columns);
      for (int64_t c = 0; c < columns; ++c) {
        for (int64_t r = 0; r < out_row; ++r) CHECK_EQUAL(out[c * out_row + r], r < rows ? in[r * in_row + c] : T(-1));
      }
    }
  });
}

TEST("bytes are normalised alike wherever they stand, and nothing is written past the last") {
  Numbers numbers(5);
  each_table([&]<typename T>(const Kernels<T>& kernels, double limit) {
    std::vector<uint8_t> bytes(256);
    for (size_t i = 0; i < 256; ++i) bytes[i] = static_cast<uint8_t>(i);
    const T scale = T(1) / T(73), shift = T(-0.4);
    std::vector<T> whole(256);
    kernels.normalise(bytes.data(), whole.data(), 256, scale, shift);
    for (int i = 0; i < 256; ++i) CHECK_CLOSE(static_cast<double>(whole[i]), i * double{scale} + double{shift}, limit, 4);
    for (int64_t n = 1; n < 70; ++n) {
      std::vector<T> part(static_cast<size_t>(n) + 1, T(9));
      kernels.normalise(bytes.data() + 100, part.data(), n, scale, shift);
      for (int64_t i = 0; i < n; ++i) CHECK_EQUAL(part[i], whole[100 + i]);
      CHECK_EQUAL(part[n], T(9));
    }
  });
}

TEST("ReLU, its gradient, sums and additions") {
  Numbers numbers(6);
  each_table([&]<typename T>(const Kernels<T>& kernels, double limit) {
    const int64_t n = 3 * kLane;
    auto x = numbers.normals<T>(n);
    x[1] = T(0);
    x[2] = static_cast<T>(kNaN);
    const auto dy = numbers.normals<T>(n), z = numbers.normals<T>(n);
    std::vector<T> y(static_cast<size_t>(n)), dx = dy, sum(static_cast<size_t>(n)), total(3);
    kernels.relu(x.data(), y.data(), n);
    kernels.relu_backward(y.data(), dx.data(), n);
    kernels.add(dy.data(), z.data(), sum.data(), n);
    kernels.row_sum(z.data(), kLane, total.data(), 3, kLane);
    CHECK(std::isnan(static_cast<double>(y[2])));
    for (int64_t i = 0; i < n; ++i) {
      if (i != 2) CHECK_EQUAL(y[i], x[i] > 0 ? x[i] : T(0));
      CHECK_EQUAL(dx[i], x[i] <= 0 ? T(0) : dy[i]);
      CHECK_EQUAL(sum[i], dy[i] + z[i]);
    }
    for (int64_t r = 0; r < 3; ++r) {
      double expected = 0;
      for (int64_t i = 0; i < kLane; ++i) expected += z[r * kLane + i];
      CHECK_CLOSE(static_cast<double>(total[r]), expected, limit, 20);
    }
  });
}
