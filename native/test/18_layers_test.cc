// The kernels of the layers around convolutions, of every instruction set that this CPU has and every storage type,
// against plain loops in double precision over random shapes.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <type_traits>

#include "check.h"
#include "kernels/layers.h"
#include "numbers.h"

using namespace lth;
using test::Numbers;

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

double value_of(float x) { return static_cast<double>(x); }
double value_of(double x) { return x; }
double value_of(Bf16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof wide);
  return static_cast<double>(wide);
}

template <typename S>
S stored(double x) {
  if constexpr (std::is_same_v<S, Bf16>) {
    // To nearest, ties to even: by comparison with both neighbours, not by the kernels' trick.
    const float wide = static_cast<float>(x);
    uint32_t bits;
    std::memcpy(&bits, &wide, sizeof bits);
    if (wide != wide) return {0x7fc0};
    const Bf16 down = {static_cast<uint16_t>(bits >> 16)}, up = {static_cast<uint16_t>((bits >> 16) + 1)};
    const double below = std::fabs(static_cast<double>(wide) - value_of(down));
    const double above = std::fabs(value_of(up) - static_cast<double>(wide));
    return below < above || (below == above && down.bits % 2 == 0) ? down : up;
  } else {
    return static_cast<S>(x);
  }
}

template <typename S>
std::vector<S> normals(Numbers& numbers, int64_t n, double mean = 0) {
  std::vector<S> out(static_cast<size_t>(n));
  for (S& x : out) x = stored<S>(mean + numbers.normal());
  return out;
}

// f(kernels, rounding of the arithmetic, rounding of the storage, numbers) for every table that can run here.
template <typename F>
void each_table(F&& f) {
  Numbers numbers(18);
  f(layer_kernels(Isa::kPortable, static_cast<const double*>(nullptr)), 1e-15, 1e-15, numbers);
  for (Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512}) {
    if (!available(isa)) continue;
    f(layer_kernels(isa, static_cast<const float*>(nullptr)), 1e-7, 1e-7, numbers);
    f(layer_kernels(isa, static_cast<const Bf16*>(nullptr)), 1e-7, 4e-3, numbers);
  }
}

void check_close(double a, double b, double limit, const char* what, int line) {
  if (!(std::fabs(a - b) <= limit)) {
    lth::test::complain(__FILE__, line, std::string(what) + ": " + std::to_string(a) + " is not " + std::to_string(b));
  }
}
#define CHECK_CLOSE(a, b, limit) check_close((a), (b), (limit), #a, __LINE__)

// A slice of so many rows of C channels, with what belongs to its channels.
template <typename S>
struct Slice {
  using R = Real<S>;
  int64_t channels, rows, total, period;
  std::vector<S> x;
  std::vector<R> mean, scale, shift, constant, slope;

  Slice(Numbers& numbers, double mean_of_x)
      : channels(1 + numbers.below(70)),
        rows(1 + numbers.below(200)),
        total(rows * channels),
        period(std::lcm(channels, kLane)),
        x(normals<S>(numbers, total, mean_of_x)) {
    for (auto* one : {&mean, &scale, &shift, &constant, &slope}) {
      const auto of_channels = normals<R>(numbers, channels);
      for (int64_t p = 0; p < period; ++p) one->push_back(of_channels[p % channels]);
    }
  }
};

template <typename S>
double sum_of(const std::vector<double>& parts, const Slice<S>& s, int64_t channel) {
  double sum = 0;
  for (int64_t p = channel; p < s.period; p += s.channels) sum += parts[p];
  return sum;
}

}  // namespace

TEST("moments are those of plain loops, also where the mean is far larger than the deviation") {
  each_table([]<typename S>(const LayerKernels<S>& kernels, double unit, double, Numbers& numbers) {
    for (int round = 0; round < 60; ++round) {
      const Slice<S> s(numbers, round % 2 ? 100 : 0);
      std::vector<double> shift(s.period), sum(s.period), square(s.period);
      kernels.moments(s.x.data(), s.total, s.period, shift.data(), sum.data(), square.data());
      for (int64_t p = 0; p < s.period; ++p) {
        double first = 0, second = 0, size = 0;
        for (int64_t i = p; i < s.total; i += s.period) {
          const double d = value_of(s.x[i]) - value_of(s.x[p]);
          first += d;
          second += d * d;
          size += std::fabs(d);
        }
        CHECK_EQUAL(shift[p], p < s.total ? value_of(s.x[p]) : 0.0);
        // A difference of two storage numbers is rounded once more.
        CHECK_CLOSE(sum[p], first, unit * (64 * size + 1));
        CHECK_CLOSE(square[p], second, unit * (64 * second + 1));
      }
    }
  });
}

TEST("normalisation with and without sum and ReLU, and its gradient, are those of plain loops") {
  each_table([]<typename S>(const LayerKernels<S>& kernels, double unit, double storage, Numbers& numbers) {
    for (int round = 0; round < 60; ++round) {
      const Slice<S> s(numbers, 0);
      const bool relu = numbers.below(2), with_other = numbers.below(2);
      auto other = normals<S>(numbers, s.total);
      std::vector<S> y(s.total);
      kernels.normalise(s.x.data(), with_other ? other.data() : nullptr, s.total, s.period, s.mean.data(), s.scale.data(),
                        s.shift.data(), relu, y.data());
      for (int64_t i = 0; i < s.total; ++i) {
        const int64_t c = i % s.channels;
        const double centred = value_of(s.x[i]) - static_cast<double>(s.mean[c]);
        double expected = centred * static_cast<double>(s.scale[c]) + static_cast<double>(s.shift[c]);
        const double size = std::fabs(centred * static_cast<double>(s.scale[c])) + 3;
        if (with_other) expected += value_of(other[i]);
        CHECK_CLOSE(value_of(y[i]), relu ? std::max(expected, 0.0) : expected, 4 * unit * size + storage * std::fabs(expected));
      }
      // Backward: in place over d, as the executor has it.
      auto d = normals<S>(numbers, s.total);
      const auto before = d;
      const bool second = numbers.below(2);
      std::vector<double> sum(s.period), product(s.period);
      kernels.gate(d.data(), second ? other.data() : nullptr, relu ? y.data() : nullptr, s.x.data(), s.total, s.period,
                   s.mean.data(), d.data(), sum.data(), product.data());
      std::vector<double> sums(s.channels), products(s.channels), sizes(s.channels);
      for (int64_t i = 0; i < s.total; ++i) {
        const int64_t c = i % s.channels;
        double g = value_of(before[i]) + (second ? value_of(other[i]) : 0);
        if (relu && value_of(y[i]) <= 0) g = 0;
        CHECK_CLOSE(value_of(d[i]), g, (unit + storage) * std::fabs(g));
        const double centred = value_of(s.x[i]) - static_cast<double>(s.mean[c]);
        sums[c] += g;
        products[c] += g * centred;
        sizes[c] += std::fabs(g) * (1 + std::fabs(centred));
      }
      for (int64_t c = 0; c < s.channels; ++c) {
        CHECK_CLOSE(sum_of(sum, s, c), sums[c], unit * (64 * sizes[c] + 1));
        CHECK_CLOSE(sum_of(product, s, c), products[c], unit * (64 * sizes[c] + 1));
      }
      std::vector<S> dx(s.total);
      kernels.normalise_backward(d.data(), s.x.data(), s.total, s.period, s.mean.data(), s.scale.data(), s.constant.data(),
                                 s.slope.data(), dx.data());
      for (int64_t i = 0; i < s.total; ++i) {
        const int64_t c = i % s.channels;
        const double centred = value_of(s.x[i]) - static_cast<double>(s.mean[c]);
        const double slope = centred * static_cast<double>(s.slope[c]), constant = static_cast<double>(s.constant[c]);
        const double scale = static_cast<double>(s.scale[c]), expected = scale * (value_of(d[i]) - constant - slope);
        const double size = std::fabs(scale) * (std::fabs(value_of(d[i])) + std::fabs(constant) + std::fabs(slope) + 1);
        CHECK_CLOSE(value_of(dx[i]), expected, 4 * unit * size + storage * std::fabs(expected));
      }
    }
  });
}

TEST("a single gradient without ReLU is read and not written") {
  each_table([]<typename S>(const LayerKernels<S>& kernels, double, double, Numbers& numbers) {
    const Slice<S> s(numbers, 0);
    const auto d = normals<S>(numbers, s.total);
    std::vector<S> g = normals<S>(numbers, s.total);
    const auto before = g;
    std::vector<double> sum(s.period), product(s.period);
    kernels.gate(d.data(), nullptr, nullptr, s.x.data(), s.total, s.period, s.mean.data(), g.data(), sum.data(), product.data());
    for (int64_t i = 0; i < s.total; ++i) CHECK_EQUAL(value_of(g[i]), value_of(before[i]));
  });
}

TEST("the largest of a window is found and its gradient goes to the first of equals") {
  each_table([]<typename S>(const LayerKernels<S>& kernels, double, double storage, Numbers& numbers) {
    for (int round = 0; round < 40; ++round) {
      Window w;
      w.height = 1 + numbers.below(9);
      w.width = 1 + numbers.below(9);
      w.channels = 1 + numbers.below(40);
      w.kernel_h = 1 + numbers.below(std::min<int64_t>(3, w.height));
      w.kernel_w = 1 + numbers.below(std::min<int64_t>(3, w.width));
      w.stride_h = 1 + numbers.below(3);
      w.stride_w = 1 + numbers.below(3);
      w.padding_h = numbers.below(w.kernel_h);
      w.padding_w = numbers.below(w.kernel_w);
      w.out_height = (w.height + 2 * w.padding_h - w.kernel_h) / w.stride_h + 1;
      w.out_width = (w.width + 2 * w.padding_w - w.kernel_w) / w.stride_w + 1;
      const int64_t in_size = w.height * w.width * w.channels, out_size = w.out_height * w.out_width * w.channels;
      auto in = normals<S>(numbers, in_size);
      for (S& x : in) {  // many equals
        if (numbers.below(2)) x = stored<S>(static_cast<double>(numbers.below(2)));
      }
      const auto dy = normals<S>(numbers, out_size);
      std::vector<S> out(out_size), dx(in_size);
      kernels.max_pool(w, in.data(), out.data());
      kernels.max_pool_backward(w, in.data(), out.data(), dy.data(), dx.data());
      std::vector<double> expected(in_size), size(in_size);
      for (int64_t y = 0; y < w.out_height; ++y) {
        for (int64_t x = 0; x < w.out_width; ++x) {
          for (int64_t c = 0; c < w.channels; ++c) {
            int64_t best = -1;
            for (int64_t h = y * w.stride_h - w.padding_h; h < y * w.stride_h - w.padding_h + w.kernel_h; ++h) {
              for (int64_t v = x * w.stride_w - w.padding_w; v < x * w.stride_w - w.padding_w + w.kernel_w; ++v) {
                if (h < 0 || v < 0 || h >= w.height || v >= w.width) continue;
                const int64_t at = (h * w.width + v) * w.channels + c;
                if (best < 0 || value_of(in[at]) > value_of(in[best])) best = at;
              }
            }
            const int64_t to = (y * w.out_width + x) * w.channels + c;
            if (best < 0) continue;  // a window that lies in the padding alone: no network that compiles has one
            CHECK_EQUAL(value_of(out[to]), value_of(in[best]));
            expected[best] += value_of(dy[to]);
            size[best] += std::fabs(value_of(dy[to]));
          }
        }
      }
      for (int64_t i = 0; i < in_size; ++i) CHECK_CLOSE(value_of(dx[i]), expected[i], 9 * storage * size[i]);
    }
  });
}

TEST("NaN goes through normalisation, ReLU and pooling, so that a training that diverges says so") {
  each_table([]<typename S>(const LayerKernels<S>& kernels, double, double, Numbers& numbers) {
    Slice<S> s(numbers, 0);
    s.x[s.total / 2] = stored<S>(kNaN);
    std::vector<S> y(s.total);
    kernels.normalise(s.x.data(), nullptr, s.total, s.period, s.mean.data(), s.scale.data(), s.shift.data(), true, y.data());
    CHECK(std::isnan(value_of(y[s.total / 2])));
    kernels.relu(s.x.data(), y.data(), s.total);
    CHECK(std::isnan(value_of(y[s.total / 2])));
    for (int64_t place = 0; place < 4; ++place) {
      std::vector<S> in = {stored<S>(1), stored<S>(2), stored<S>(3), stored<S>(4)}, out(1);
      in[place] = stored<S>(kNaN);
      kernels.max_pool({2, 2, 1, 1, 1, 2, 2, 2, 2, 0, 0}, in.data(), out.data());
      CHECK(std::isnan(value_of(out[0])));
    }
  });
}

TEST("ReLU, sums and changes of the storage type are those of plain loops, for any length") {
  each_table([]<typename S>(const LayerKernels<S>& kernels, double unit, double, Numbers& numbers) {
    using R = Real<S>;
    for (int64_t n = 1; n < 90; ++n) {
      const auto a = normals<S>(numbers, n), b = normals<S>(numbers, n);
      const auto wide = normals<R>(numbers, n);
      std::vector<S> out(n), back(n), sum(n), narrow(n);
      std::vector<R> widened(n), added = wide;
      kernels.relu(a.data(), out.data(), n);
      kernels.relu_backward(out.data(), b.data(), back.data(), n);
      kernels.add(a.data(), b.data(), sum.data(), n);
      kernels.widen(a.data(), widened.data(), n);
      kernels.widen_add(a.data(), added.data(), n);
      kernels.narrow(wide.data(), narrow.data(), n);
      for (int64_t i = 0; i < n; ++i) {
        const double x = value_of(a[i]);
        CHECK_EQUAL(value_of(out[i]), std::max(x, 0.0));
        CHECK_EQUAL(value_of(back[i]), x > 0 ? value_of(b[i]) : 0.0);
        const R exact = static_cast<R>(x) + static_cast<R>(value_of(b[i]));
        CHECK_EQUAL(value_of(sum[i]), value_of(stored<S>(static_cast<double>(exact))));
        CHECK_EQUAL(static_cast<double>(widened[i]), x);
        CHECK_CLOSE(static_cast<double>(added[i]), static_cast<double>(wide[i]) + x, 4 * unit);
        CHECK_EQUAL(value_of(narrow[i]), value_of(stored<S>(static_cast<double>(wide[i]))));
      }
      const int64_t channels = 1 + numbers.below(n), period = std::lcm(channels, kLane);
      std::vector<double> sums(period);
      kernels.column_sums(a.data(), n / channels * channels, period, sums.data());
      for (int64_t c = 0; c < channels; ++c) {
        double expected = 0, got = 0;
        for (int64_t i = c; i < n / channels * channels; i += channels) expected += value_of(a[i]);
        for (int64_t p = c; p < period; p += channels) got += sums[p];
        CHECK_CLOSE(got, expected, 64 * unit * static_cast<double>(n));
      }
    }
  });
}
