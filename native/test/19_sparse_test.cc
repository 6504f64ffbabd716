// The kernels of sparse convolutions, of every instruction set that this CPU has and every storage type, against plain loops
// in double precision over random shapes and densities.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "check.h"
#include "close.h"
#include "kernels/sparse_plan.h"
#include "numbers.h"

using namespace lth;
using test::Numbers;
using test::value_of;

namespace {

// Numbers that bf16 holds exactly.
template <typename S>
S some(Numbers& numbers) {
  const float x = static_cast<float>(static_cast<int>(numbers.below(513)) - 256) / 128;
  if constexpr (std::is_same_v<S, Bf16>) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return {static_cast<uint16_t>(bits >> 16)};
  } else {
    return static_cast<S>(x);
  }
}

template <typename F>
void each_table(F&& f) {
  Numbers numbers(19);
  f(sparse_kernels(Isa::kPortable, static_cast<const double*>(nullptr)), 1e-15, 1e-15, numbers);
  for (Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16}) {
    if (!available(isa)) continue;
    if (isa != Isa::kAvx512Bf16) f(sparse_kernels(isa, static_cast<const float*>(nullptr)), 1e-7, 1e-7, numbers);
    CHECK(sparse_kernels(isa, static_cast<const Bf16*>(nullptr)).isa == isa);
    f(sparse_kernels(isa, static_cast<const Bf16*>(nullptr)), 1e-7, 4e-3, numbers);
  }
}

struct Shape {
  int64_t channels, units, height, width, out_height, out_width, kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w;
  int64_t taps() const { return kernel_h * kernel_w; }
  int64_t places() const { return height * width; }
  int64_t out_places() const { return out_height * out_width; }
};

Shape shape(Numbers& numbers) {
  Shape s{};
  s.channels = 1 + numbers.below(20);
  s.units = 1 + numbers.below(20);
  s.kernel_h = 1 + numbers.below(5);
  s.kernel_w = 1 + numbers.below(5);
  s.stride_h = 1 + numbers.below(3);
  s.stride_w = 1 + numbers.below(3);
  s.padding_h = numbers.below(s.kernel_h);
  s.padding_w = numbers.below(s.kernel_w);
  s.height = std::max<int64_t>(1, s.kernel_h - 2 * s.padding_h) + numbers.below(20);
  s.width = std::max<int64_t>(1, s.kernel_w - 2 * s.padding_w) + numbers.below(20);
  s.out_height = (s.height + 2 * s.padding_h - s.kernel_h) / s.stride_h + 1;
  s.out_width = (s.width + 2 * s.padding_w - s.kernel_w) / s.stride_w + 1;
  return s;
}

// f(unit, output place, channel, input place, tap)
template <typename F>
void products(const Shape& s, F&& f) {
  for (int64_t u = 0; u < s.units; ++u) {
    for (int64_t p = 0; p < s.out_places(); ++p) {
      const int64_t top = p / s.out_width * s.stride_h - s.padding_h, left = p % s.out_width * s.stride_w - s.padding_w;
      for (int64_t t = 0; t < s.taps(); ++t) {
        const int64_t y = top + t / s.kernel_w, x = left + t % s.kernel_w;
        if (y < 0 || x < 0 || y >= s.height || x >= s.width) continue;
        for (int64_t c = 0; c < s.channels; ++c) f(u, p, c, y * s.width + x, t);
      }
    }
  }
}

template <typename S>
int64_t at(int64_t channel, int64_t places, int64_t place, int64_t example) {
  return ((channel / kPack<S> * places + place) * kLane + example) * kPack<S> + channel % kPack<S>;
}

template <typename S>
std::vector<S> image(Numbers& numbers, int64_t channels, int64_t places) {
  std::vector<S> x(planes_of<S>(channels) * places * kCell<S>);
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t p = 0; p < places; ++p) {
      for (int64_t n = 0; n < kLane; ++n) x[at<S>(c, places, p, n)] = some<S>(numbers);
    }
  }
  return x;
}

}  // namespace

TEST("sparse convolutions and their gradients to the input are those of plain loops, at any density") {
  each_table([]<typename S>(const SparseKernels<S>& kernels, double unit, double storage, Numbers& numbers) {
    using R = Real<S>;
    for (int round = 0; round < 100; ++round) {
      const Shape s = shape(numbers);
      const int64_t size = s.units * s.channels * s.taps(), first = 64 * numbers.below(3);
      // None, one, few, all.
      const int64_t kept_of_100 = std::vector<int64_t>{0, 3, 10, 40, 100}[round % 5];
      std::vector<uint64_t> mask((first + size + 63) / 64, round % 2 ? ~uint64_t{0} : 0);
      for (int64_t i = 0; i < size; ++i) numbers.below(100) < kept_of_100 ? set_bit(mask, first + i) : clear_bit(mask, first + i);
      if (kept_of_100 == 3) {
        for (int64_t i = 0; i < size; ++i) clear_bit(mask, first + i);
        set_bit(mask, first + numbers.below(size));
      }
      std::vector<S> weights(size);
      for (int64_t i = 0; i < size; ++i) weights[i] = bit_at(mask, first + i) ? some<S>(numbers) : S{};
      const auto x = image<S>(numbers, s.channels, s.places()), dy = image<S>(numbers, s.units, s.out_places());
      std::vector<R> bias(s.units);
      for (R& b : bias) b = static_cast<R>(value_of(some<S>(numbers)));
      const bool with_bias = numbers.below(2);

      std::vector<double> y(s.units * s.out_places() * kLane), dx(s.channels * s.places() * kLane);
      std::vector<double> size_y(y.size()), size_dx(dx.size());
      products(s, [&](int64_t u, int64_t p, int64_t c, int64_t q, int64_t t) {
        const double w = value_of(weights[(u * s.channels + c) * s.taps() + t]);
        if (w == 0) return;
        for (int64_t n = 0; n < kLane; ++n) {
          const double a = w * value_of(x[at<S>(c, s.places(), q, n)]);
          const double b = w * value_of(dy[at<S>(u, s.out_places(), p, n)]);
          y[(u * s.out_places() + p) * kLane + n] += a;
          size_y[(u * s.out_places() + p) * kLane + n] += std::fabs(a);
          dx[(c * s.places() + q) * kLane + n] += b;
          size_dx[(c * s.places() + q) * kLane + n] += std::fabs(b);
        }
      });

      // Junk before: whatever is not written shows.
      std::vector<S> out(planes_of<S>(s.units) * s.out_places() * kCell<S>), in(planes_of<S>(s.channels) * s.places() * kCell<S>);
      for (auto* one : {&out, &in}) {
        for (S& v : *one) v = some<S>(numbers);
      }
      const auto rows = SparseAxis::forward(s.height, s.out_height, s.kernel_h, s.stride_h, s.padding_h);
      const auto columns = SparseAxis::forward(s.width, s.out_width, s.kernel_w, s.stride_w, s.padding_w);
      SparseEntries<S> entries({s.units, s.channels, s.channels * s.taps(), s.taps(), s.kernel_w, s.kernel_h, s.places(), s.width},
                               rows, columns, mask, first);
      entries.refresh(weights.data(), 0, entries.size());
      const auto runs = place_runs(rows, columns, s.width, s.out_width);
      kernels.convolve({x.data(), entries.entries(), entries.starts(), s.kernel_w, s.kernel_h, runs.data(),
                        static_cast<int64_t>(runs.size()), with_bias ? bias.data() : nullptr, out.data(), s.units, s.out_places()});
      const auto rows_back = SparseAxis::backward(s.height, s.out_height, s.kernel_h, s.stride_h, s.padding_h);
      const auto columns_back = SparseAxis::backward(s.width, s.out_width, s.kernel_w, s.stride_w, s.padding_w);
      SparseEntries<S> back({s.channels, s.units, s.taps(), s.channels * s.taps(), s.kernel_w, s.kernel_h, s.out_places(), s.out_width},
                            rows_back, columns_back, mask, first);
      back.refresh(weights.data(), 0, back.size());
      const auto runs_back = place_runs(rows_back, columns_back, s.out_width, s.width);
      kernels.convolve({dy.data(), back.entries(), back.starts(), s.kernel_w, s.kernel_h, runs_back.data(),
                        static_cast<int64_t>(runs_back.size()), nullptr, in.data(), s.channels, s.places()});

      const auto compare = [&](const std::vector<S>& got, const std::vector<double>& expected, const std::vector<double>& terms,
                               int64_t channels, int64_t places, const R* add) {
        for (int64_t c = 0; c < planes_of<S>(channels) * kPack<S>; ++c) {
          for (int64_t p = 0; p < places; ++p) {
            for (int64_t n = 0; n < kLane; ++n) {
              const double value = value_of(got[at<S>(c, places, p, n)]);
              const int64_t i = (c * places + p) * kLane + n;
              const double wanted = c < channels ? expected[i] + (add ? static_cast<double>(add[c]) : 0) : 0;
              CHECK_CLOSE(value, wanted, c < channels ? unit * 64 * (terms[i] + 3) + storage * std::fabs(wanted) : 0);
            }
          }
        }
      };
      compare(out, y, size_y, s.units, s.out_places(), with_bias ? bias.data() : nullptr);
      compare(in, dx, size_dx, s.channels, s.places(), nullptr);
    }
  });
}

TEST("entries are one per plane and tap that has a weight, whatever the order") {
  Numbers numbers(190);
  for (int round = 0; round < 50; ++round) {
    const Shape s = shape(numbers);
    const int64_t size = s.units * s.channels * s.taps();
    std::vector<uint64_t> mask((size + 63) / 64);
    std::vector<char> has(s.units * planes_of<Bf16>(s.channels) * s.taps());
    for (int64_t i = 0; i < size; ++i) {
      if (numbers.below(10) > 0) continue;
      set_bit(mask, i);
      const int64_t c = i / s.taps() % s.channels, u = i / s.taps() / s.channels;
      has[(u * planes_of<Bf16>(s.channels) + c / 2) * s.taps() + i % s.taps()] = 1;
    }
    const auto rows = SparseAxis::backward(s.height, s.out_height, s.kernel_h, s.stride_h, s.padding_h);
    const auto columns = SparseAxis::backward(s.width, s.out_width, s.kernel_w, s.stride_w, s.padding_w);
    SparseEntries<Bf16> entries({s.units, s.channels, s.channels * s.taps(), s.taps(), s.kernel_w, s.kernel_h, s.places(), s.width},
                                rows, columns, mask, 0);
    CHECK_EQUAL(entries.size(), static_cast<int64_t>(std::count(has.begin(), has.end(), 1)));
    const SparseShape counted = {s.units, s.channels, s.channels * s.taps(), s.taps(), s.kernel_w, s.kernel_h, s.places(), s.width};
    CHECK_EQUAL(SparseEntries<Bf16>::count(counted, s.taps(), mask, 0), entries.size());
    // Every place of the output is made once.
    std::vector<int> made(s.places());
    for (const PlaceRun& run : place_runs(rows, columns, s.out_width, s.width)) {
      CHECK(run.count >= 1 && run.count <= kRun);
      for (int32_t i = 0; i < run.count; ++i) ++made[run.out + i * run.out_step];
    }
    for (int times : made) CHECK_EQUAL(times, 1);
  }
}

TEST("entries of one tap, moved to another batch, are those that are made for it") {
  Numbers numbers(191);
  const auto one = SparseAxis::forward(1, 1, 1, 1, 0);
  for (int round = 0; round < 20; ++round) {
    const int64_t units = 1 + numbers.below(20), features = 1 + numbers.below(40);
    std::vector<uint64_t> mask((units * features + 63) / 64);
    for (int64_t i = 0; i < units * features; ++i) {
      if (numbers.below(4) == 0) set_bit(mask, i);
    }
    const auto made_for = [&](int64_t plane) {
      return SparseEntries<float>({units, features, features, 1, 1, 1, plane, 1}, one, one, mask, 0);
    };
    SparseEntries<float> moved = made_for(4);
    for (const int64_t plane : {int64_t{8}, int64_t{1}, 2 + static_cast<int64_t>(numbers.below(9)), int64_t{4}}) {
      moved.set_plane(plane);
      const SparseEntries<float> made = made_for(plane);
      CHECK_EQUAL(moved.size(), made.size());
      for (int64_t i = 0; i < made.size(); ++i) CHECK_EQUAL(moved.entries()[i].offset, made.entries()[i].offset);
    }
  }
  // A mask of which nothing is left has no entries to move; one that was never made has no planes.
  SparseEntries<float> none({3, 5, 5, 1, 1, 1, 4, 1}, one, one, std::vector<uint64_t>(1), 0);
  CHECK(none.made() && !SparseEntries<float>().made());
  none.set_plane(2);
  CHECK_EQUAL(none.size(), int64_t{0});
}

TEST("gradients at the weights that are left are those of plain loops, and add to what is there") {
  each_table([]<typename S>(const SparseKernels<S>& kernels, double unit, double, Numbers& numbers) {
    using R = Real<S>;
    for (int round = 0; round < 60; ++round) {
      const int64_t rows = 1 + numbers.below(6), places = 2 * (1 + numbers.below(6)), units = 1 + numbers.below(4);
      const int64_t row = places * kLane, x_row = row + kLane * numbers.below(3), dy_row = row, dy_unit = rows * dy_row;
      std::vector<S> x(3 * rows * x_row + 4 * kLane), dy(units * dy_unit);
      for (auto* one : {&x, &dy}) {
        for (S& v : *one) v = some<S>(numbers);
      }
      std::vector<int32_t> offsets, starts = {0};
      for (int64_t u = 0; u < units; ++u) {
        for (int64_t w = numbers.below(20); w > 0; --w) offsets.push_back(static_cast<int32_t>(kLane * numbers.below(4) + numbers.below(3) * rows * x_row));
        starts.push_back(static_cast<int32_t>(offsets.size()));
      }
      std::vector<R> out(offsets.size(), R(77));
      for (const bool add : {false, true}) {
        for (int64_t u = 0; u < units; ++u) {
          kernels.weight_gradient({x.data(), dy.data(), rows, row, x_row, dy_row, dy_unit, offsets.data(), starts.data(), u, u + 1,
                                   add, out.data()});
        }
        for (int64_t u = 0; u < units; ++u) {
          for (int32_t w = starts[u]; w < starts[u + 1]; ++w) {
            double expected = 0, terms = 1;
            for (int64_t y = 0; y < rows; ++y) {
              for (int64_t i = 0; i < row; ++i) {
                const double a = value_of(x[offsets[w] + y * x_row + i]);
                const double product = a * value_of(dy[u * dy_unit + y * dy_row + i]);
                expected += product;
                terms += std::fabs(product);
              }
            }
            CHECK_CLOSE(static_cast<double>(out[w]), add ? 2 * expected : expected, 64 * unit * terms);
          }
        }
      }
    }
  });
}

TEST("a plane is split into its channels") {
  each_table([]<typename S>(const SparseKernels<S>& kernels, double, double, Numbers& numbers) {
    const int64_t places = 40, apart = 1000;
    const auto x = image<S>(numbers, kPack<S>, places);
    for (int64_t step = 1; step <= 3; ++step) {
      const int64_t place = numbers.below(5), count = (places - place) / step;
      std::vector<S> out(kPack<S> * apart);
      kernels.split(x.data(), place, step, count, apart, out.data());
      for (int64_t c = 0; c < kPack<S>; ++c) {
        for (int64_t i = 0; i < apart; ++i) {
          const double expected = i < count * kLane ? value_of(x[at<S>(c, places, place + i / kLane * step, i % kLane)]) : 0;
          CHECK_EQUAL(value_of(out[c * apart + i]), expected);
        }
      }
    }
  });
}
