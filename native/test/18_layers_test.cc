// The kernels of the layers around convolutions, of every instruction set that this CPU has and every storage type, against
// plain loops in double precision over random shapes.
#include "check.h"
#include "images.h"

using namespace lth;
using namespace lth::test;

TEST("each table is that of its instruction set, and what this CPU does not have is named") {
  for (Isa isa : kIsas) {
    if (!available(isa)) {
      std::fprintf(stderr, "  not tested, this CPU does not have it: %s\n", name_of(isa));
      continue;
    }
    CHECK(layer_kernels(isa, static_cast<const Bf16*>(nullptr)).isa == isa);
    CHECK(layer_kernels(isa, static_cast<const float*>(nullptr)).isa == (isa == Isa::kAvx512Bf16 ? Isa::kAvx512 : isa));
    CHECK(layer_kernels(isa, static_cast<const double*>(nullptr)).isa == Isa::kPortable);
  }
}

TEST("moments are those of plain loops, also where the mean is far larger than the deviation") {
  each_table([]<typename S>(const LayerKernels<S>& kernels, double unit, double, Numbers& numbers) {
    for (int round = 0; round < 60; ++round) {
      const auto x = image<S>(numbers, round % 2 ? 100 : 0);
      std::vector<double> shift(x.planes * kPack<S>, kNaN), sum = shift, square = shift, sums = shift;
      kernels.moments(x.data.data(), x.planes, x.places, x.examples, shift.data(), sum.data(), square.data());
      kernels.channel_sums(x.data.data(), x.planes, x.places, sums.data());
      for (int64_t c = 0; c < x.channels; ++c) {
        double first = 0, second = 0, size = 0, all = 0, all_size = 0;
        for (int64_t n = 0; n < x.examples; ++n) {
          for (int64_t p = 0; p < x.places; ++p) {
            const double d = x.value(n, c, p) - shift[c];
            first += d;
            second += d * d;
            size += std::fabs(d);
            all += x.value(n, c, p);
            all_size += std::fabs(x.value(n, c, p));
          }
        }
        CHECK_EQUAL(shift[c], x.value(0, c, 0));
        // A difference of two storage numbers is rounded once more.
        CHECK_CLOSE(sum[c], first, unit * (64 * size + 1));
        CHECK_CLOSE(square[c], second, unit * (64 * second + 1));
        CHECK_CLOSE(sums[c], all, unit * (64 * all_size + 1));
      }
    }
  });
}

TEST("sums over many places are as exact as blocks of 64 terms make them") {
  each_table([]<typename S>(const LayerKernels<S>& kernels, double unit, double, Numbers& numbers) {
    Image<S> x(kPack<S>, 112, 112, kLane);
    x.fill(numbers, 3);
    for (int64_t c = 0; c < x.channels; ++c) x.at(0, c, 0) = stored<S>(0);  // from where `moments` measures
    const std::vector<Real<S>> mean(x.channels);
    std::vector<double> shift(x.channels, kNaN), sum = shift, square = shift, sums = shift, of_gate = shift, product = shift;
    kernels.moments(x.data.data(), x.planes, x.places, x.examples, shift.data(), sum.data(), square.data());
    kernels.channel_sums(x.data.data(), x.planes, x.places, sums.data());
    kernels.gate(x.data.data(), nullptr, nullptr, x.data.data(), x.planes, x.places, mean.data(), x.data.data(),
                 of_gate.data(), product.data());
    std::vector<double> first(x.channels), second(x.channels);
    x.each([&](int64_t n, int64_t c, int64_t p) {
      first[c] += x.value(n, c, p);
      second[c] += x.value(n, c, p) * x.value(n, c, p);
    });
    for (int64_t c = 0; c < x.channels; ++c) {
      // Sums of all places in float are wrong by more than `unit`; this loop is no better than sums in double are.
      const double limit = unit / 5 + 1e-13;
      for (const auto& got : {sum, sums, of_gate}) CHECK_CLOSE(got[c], first[c], limit * first[c]);
      for (const auto& got : {square, product}) CHECK_CLOSE(got[c], second[c], limit * second[c]);
    }
  });
}

TEST("normalisation with and without sum and ReLU, and its gradient, are those of plain loops") {
  each_table([]<typename S>(const LayerKernels<S>& kernels, double unit, double storage, Numbers& numbers) {
    for (int round = 0; round < 60; ++round) {
      const auto x = image<S>(numbers);
      const auto mean = constants(numbers, x), scale = constants(numbers, x), shift = constants(numbers, x);
      const auto constant = constants(numbers, x), slope = constants(numbers, x);
      const bool relu = numbers.below(2), with_other = numbers.below(2), second = numbers.below(2);
      Image<S> other = x, y = x, d = x, apart = x;
      other.fill(numbers);
      d.fill(numbers);
      junk(y.data, apart.data);
      const Image<S> before = d, added = other;
      kernels.normalise(x.data.data(), with_other ? other.data.data() : nullptr, x.planes, x.places, mean.data(), scale.data(),
                        shift.data(), relu, y.data.data());
      CHECK(y.clean(false));
      // Over either gradient, as the executor has it, or elsewhere; a single one without ReLU stays where it is.
      const int64_t where = second || relu ? numbers.below(3) : 0;
      Image<S>& g = where == 0 ? d : where == 1 ? other : apart;
      std::vector<double> sum(mean.size(), kNaN), product = sum;
      std::vector<double> sums(mean.size()), products(mean.size()), sizes(mean.size());
      kernels.gate(d.data.data(), second ? other.data.data() : nullptr, relu ? y.data.data() : nullptr, x.data.data(), x.planes,
                   x.places, mean.data(), g.data.data(), sum.data(), product.data());
      CHECK(g.clean());
      const bool in_place = numbers.below(2);
      Image<S> dx = g;
      if (!in_place) junk(dx.data);
      kernels.normalise_backward((in_place ? dx : g).data.data(), x.data.data(), x.planes, x.places, x.examples, mean.data(),
                                 scale.data(), constant.data(), slope.data(), dx.data.data());
      x.each([&](int64_t n, int64_t c, int64_t p) {
        const auto of = [&](const auto& constants) { return static_cast<double>(constants[c]); };
        const double centred = x.value(n, c, p) - of(mean);
        double expected = centred * of(scale) + of(shift);
        const double size = std::fabs(centred * of(scale)) + 3;
        if (with_other) expected += added.value(n, c, p);
        CHECK_CLOSE(y.value(n, c, p), relu ? std::max(expected, 0.0) : expected, 4 * unit * size + storage * std::fabs(expected));
        double due = before.value(n, c, p) + (second ? added.value(n, c, p) : 0);
        if (relu && y.value(n, c, p) <= 0) due = 0;
        CHECK_CLOSE(g.value(n, c, p), due, (unit + storage) * std::fabs(due));
        sums[c] += due;
        products[c] += due * centred;
        sizes[c] += std::fabs(due) * (1 + std::fabs(centred));
        const double along = centred * of(slope), gradient = of(scale) * (g.value(n, c, p) - of(constant) - along);
        const double terms = std::fabs(g.value(n, c, p)) + std::fabs(of(constant)) + std::fabs(along) + 1;
        CHECK_CLOSE(dx.value(n, c, p), gradient, 4 * unit * std::fabs(of(scale)) * terms + storage * std::fabs(gradient));
      });
      for (int64_t c = 0; c < x.channels; ++c) {
        CHECK_CLOSE(sum[c], sums[c], unit * (64 * sizes[c] + 1));
        CHECK_CLOSE(product[c], products[c], unit * (64 * sizes[c] + 1));
      }
      CHECK(dx.clean());
    }
  });
}

TEST("a single gradient without ReLU is read and not written") {
  each_table([]<typename S>(const LayerKernels<S>& kernels, double, double, Numbers& numbers) {
    const auto x = image<S>(numbers);
    const auto mean = constants(numbers, x);
    Image<S> d = x, g = x;
    d.fill(numbers);
    g.fill(numbers);
    const Image<S> before = g;
    std::vector<double> sum(mean.size()), product(mean.size());
    kernels.gate(d.data.data(), nullptr, nullptr, x.data.data(), x.planes, x.places, mean.data(), g.data.data(), sum.data(), product.data());
    x.each([&](int64_t n, int64_t c, int64_t p) { CHECK_EQUAL(g.value(n, c, p), before.value(n, c, p)); });
  });
}

TEST("the largest of a window is found and its gradient goes to the first of equals") {
  each_table([]<typename S>(const LayerKernels<S>& kernels, double, double storage, Numbers& numbers) {
    for (int round = 0; round < 40; ++round) {
      const Window w = round == 0 ? kStem : window(numbers, 4);
      Image<S> in(1 + numbers.below(20), w.height, w.width, 1 + numbers.below(kLane)), dx = in;
      Image<S> out(in.channels, w.out_height, w.out_width, in.examples), dy = out;
      in.fill(numbers);
      dy.fill(numbers);
      in.each([&](int64_t n, int64_t c, int64_t p) {  // many equals
        if (numbers.below(2)) in.at(n, c, p) = stored<S>(static_cast<double>(numbers.below(2)));
        if (round % 4 == 1) {  // nothing is too small to be the largest
          in.at(n, c, p) = stored<S>(numbers.below(2) ? -kInfinity : -1e38 * static_cast<double>(1 + numbers.below(3)));
        }
      });
      junk(out.data, dx.data);
      kernels.max_pool(w, in.planes, in.data.data(), out.data.data());
      kernels.max_pool_backward(w, in.planes, in.data.data(), out.data.data(), dy.data.data(), dx.data.data());
      std::vector<double> expected(in.channels * in.places * kLane), size(expected.size());
      out.each([&](int64_t n, int64_t c, int64_t p) {
        const int64_t top = p / w.out_width * w.stride_h - w.padding_h, left = p % w.out_width * w.stride_w - w.padding_w;
        int64_t best = -1;
        for (int64_t h = top; h < top + w.kernel_h; ++h) {
          for (int64_t v = left; v < left + w.kernel_w; ++v) {
            if (h < 0 || v < 0 || h >= w.height || v >= w.width) continue;
            if (best < 0 || in.value(n, c, h * w.width + v) > in.value(n, c, best)) best = h * w.width + v;
          }
        }
        CHECK_EQUAL(out.value(n, c, p), in.value(n, c, best));
        expected[(c * in.places + best) * kLane + n] += dy.value(n, c, p);
        size[(c * in.places + best) * kLane + n] += std::fabs(dy.value(n, c, p));
      });
      in.each([&](int64_t n, int64_t c, int64_t p) {
        const int64_t i = (c * in.places + p) * kLane + n;
        CHECK_CLOSE(dx.value(n, c, p), expected[i], 25 * storage * size[i]);
      });
      CHECK(out.clean(false));
      CHECK(dx.clean());
    }
  });
}

TEST("the mean of a window counts what is outside as 0, and its gradient goes to all of it") {
  each_table([]<typename S>(const LayerKernels<S>& kernels, double unit, double storage, Numbers& numbers) {
    for (int round = 0; round < 40; ++round) {
      const Window w = window(numbers, 5);
      Image<S> in(1 + numbers.below(20), w.height, w.width, 1 + numbers.below(kLane)), dx = in;
      Image<S> out(in.channels, w.out_height, w.out_width, in.examples), dy = out;
      in.fill(numbers);
      dy.fill(numbers);
      junk(out.data, dx.data);
      kernels.average_pool(w, in.planes, in.data.data(), out.data.data());
      kernels.average_pool_backward(w, in.planes, dy.data.data(), dx.data.data());
      const double area = static_cast<double>(w.kernel_h * w.kernel_w);
      std::vector<double> expected(in.channels * in.places * kLane), sizes(expected.size());
      out.each([&](int64_t n, int64_t c, int64_t p) {
        const int64_t top = p / w.out_width * w.stride_h - w.padding_h, left = p % w.out_width * w.stride_w - w.padding_w;
        double sum = 0, size = 0;
        for (int64_t h = top; h < top + w.kernel_h; ++h) {
          for (int64_t v = left; v < left + w.kernel_w; ++v) {
            sum += in.value(n, c, h, v);
            size += std::fabs(in.value(n, c, h, v));
            if (h < 0 || v < 0 || h >= w.height || v >= w.width) continue;
            const int64_t i = (c * in.places + h * w.width + v) * kLane + n;
            expected[i] += dy.value(n, c, p) / area;
            sizes[i] += std::fabs(dy.value(n, c, p)) / area;
          }
        }
        CHECK_CLOSE(out.value(n, c, p), sum / area, 32 * unit * size / area + storage * std::fabs(sum) / area);
      });
      in.each([&](int64_t n, int64_t c, int64_t p) {
        const int64_t i = (c * in.places + p) * kLane + n;
        CHECK_CLOSE(dx.value(n, c, p), expected[i], 32 * unit * sizes[i] + storage * std::fabs(expected[i]));
      });
      CHECK(out.clean(false));
      CHECK(dx.clean());
    }
  });
}

TEST("dropout multiplies what stays, in place too") {
  each_table([]<typename S>(const LayerKernels<S>& kernels, double unit, double storage, Numbers& numbers) {
    for (int round = 0; round < 20; ++round) {
      const auto in = image<S>(numbers);
      std::vector<uint8_t> keep(in.elements);
      for (uint8_t& one : keep) one = static_cast<uint8_t>(numbers.below(2));
      Image<S> out = in, stays = in;
      if (round % 2) junk(out.data);
      for (int64_t i = 0; i < in.elements; ++i) stays.data[i] = stored<S>(keep[i]);
      kernels.drop(round % 2 ? in.data.data() : out.data.data(), keep.data(), Real<S>(1.25), out.data.data(), in.elements);
      in.each([&](int64_t n, int64_t c, int64_t p) {
        const double expected = stays.value(n, c, p) * 1.25 * in.value(n, c, p);
        CHECK_CLOSE(out.value(n, c, p), expected, (unit + storage) * std::fabs(expected));
      });
      CHECK(out.clean());
    }
  });
}

TEST("NaN of any bits goes through convolution, normalisation, ReLU, sums, pooling and vectors: divergence shows") {
  each_table([]<typename S>(const LayerKernels<S>& kernels, double, double, Numbers& numbers) {
    using R = Real<S>;
    for (const uint32_t bits : kNaNs) {
      Image<S> x(3, 4, 4, 5), y = x, d = x, dx = x;
      x.fill(numbers);
      d.fill(numbers);
      x.at(2, 1, 5) = nan_of<S>(bits);
      const auto mean = constants(numbers, x), scale = constants(numbers, x), shift = constants(numbers, x);
      const std::vector<R> nans(4 * kLane, nan_of<R>(bits));
      // Of one element, and of all where a channel's constant is NaN.
      const auto one = [&](int line) {
        if (!std::isnan(y.value(2, 1, 5)) || std::isnan(y.value(1, 1, 5))) test::complain(__FILE__, line, "not the one NaN");
        junk(y.data);
      };
      const auto all = [&](int line) {
        y.each([&](int64_t n, int64_t c, int64_t p) {
          const double got = y.value(n, c, p);
          if (!std::isnan(got)) test::complain(__FILE__, line, "not NaN but " + std::to_string(got));
        });
        std::fill(y.data.begin(), y.data.end(), stored<S>(0));
      };
      const auto normalise = [&](const Image<S>& of, const S* other, const R* bias, bool relu) {
        kernels.normalise(of.data.data(), other, of.planes, of.places, mean.data(), scale.data(), bias, relu, y.data.data());
      };
      normalise(x, nullptr, shift.data(), true);
      one(__LINE__);
      normalise(d, x.data.data(), shift.data(), false);
      one(__LINE__);
      kernels.relu(x.data.data(), y.data.data(), x.elements);
      one(__LINE__);
      kernels.add(x.data.data(), d.data.data(), y.data.data(), x.elements);
      one(__LINE__);
      const Window window = {4, 4, 4, 4, 1, 1, 1, 1, 0, 0};
      const AxisPlan rows = AxisPlan::forward(4, 4, 1, 1, 0, false);
      const auto weights = packed<S>(3, 3, 1, [](int64_t, int64_t, int64_t) { return stored<S>(1); });
      kernels.convolve(convolution(x, rows, rows, window, weights, nullptr, y));
      for (int64_t u = 0; u < 3; ++u) CHECK(std::isnan(y.value(2, u, 5)));
      one(__LINE__);

      std::fill(y.data.begin(), y.data.end(), stored<S>(0));
      kernels.convolve(convolution(d, rows, rows, window, weights, nans.data(), y));
      all(__LINE__);
      normalise(d, nullptr, nans.data(), true);
      all(__LINE__);
      kernels.normalise_backward(d.data.data(), x.data.data(), d.planes, d.places, d.examples, mean.data(), nans.data(),
                                 mean.data(), mean.data(), y.data.data());
      all(__LINE__);
      kernels.spread(nans.data(), kLane, y.channels, y.places, 1, y.data.data());
      all(__LINE__);
      const std::vector<R> flat(y.channels * y.places * kLane, nan_of<R>(bits));
      kernels.unflatten(flat.data(), kLane, y.channels, y.places, y.data.data());
      all(__LINE__);

      // An output that is NaN is not one that ReLU has cut off.
      std::vector<double> sum(mean.size(), kNaN), product = sum;
      const auto due = [&](int64_t n, int64_t c, int64_t p) { return x.value(n, c, p) <= 0 ? 0 : d.value(n, c, p); };
      junk(dx.data);
      kernels.relu_backward(x.data.data(), d.data.data(), dx.data.data(), x.elements);
      x.each([&](int64_t n, int64_t c, int64_t p) { CHECK_EQUAL(dx.value(n, c, p), due(n, c, p)); });
      junk(dx.data);
      kernels.gate(d.data.data(), nullptr, x.data.data(), d.data.data(), d.planes, d.places, mean.data(), dx.data.data(),
                   sum.data(), product.data());
      x.each([&](int64_t n, int64_t c, int64_t p) { CHECK_EQUAL(dx.value(n, c, p), due(n, c, p)); });

      for (int64_t place = 0; place < 4; ++place) {
        Image<S> in(1, 2, 2, 1), out(1, 1, 1, 1);
        for (int64_t p = 0; p < 4; ++p) in.at(0, 0, p) = p == place ? nan_of<S>(bits) : stored<S>(static_cast<double>(p));
        kernels.max_pool({2, 2, 1, 1, 2, 2, 2, 2, 0, 0}, 1, in.data.data(), out.data.data());
        CHECK(std::isnan(out.value(0, 0, 0)));
      }
    }
  });
}

TEST("ReLU, sums and changes of the storage type are those of plain loops") {
  each_table([]<typename S>(const LayerKernels<S>& kernels, double unit, double storage, Numbers& numbers) {
    using R = Real<S>;
    for (int round = 0; round < 60; ++round) {
      const auto a = image<S>(numbers);
      Image<S> b = a, out = a, back = a, sum = a;
      b.fill(numbers);
      junk(out.data, back.data, sum.data);
      kernels.relu(a.data.data(), out.data.data(), a.elements);
      kernels.relu_backward(out.data.data(), b.data.data(), back.data.data(), a.elements);
      kernels.add(a.data.data(), b.data.data(), sum.data.data(), a.elements);
      CHECK(out.clean(false));
      CHECK(back.clean());
      CHECK(sum.clean(false));
      // Vectors, with room of other slices between their rows and of other layers behind them.
      const int64_t row = 3 * kLane, channels = a.planes * kPack<S>;
      std::vector<R> flat(channels * a.places * row, stored<R>(kNaN)), means(channels * row, stored<R>(kNaN));
      kernels.flatten(a.data.data(), a.channels, a.places, flat.data() + kLane, row);
      kernels.place_sums(a.data.data(), a.channels, a.places, R(0.5), means.data() + kLane, row);
      Image<S> again = b, spread = b;
      junk(again.data, spread.data);
      kernels.unflatten(flat.data() + kLane, row, a.channels, a.places, again.data.data());
      kernels.spread(means.data() + kLane, row, a.channels, a.places, R(0.25), spread.data.data());
      a.each([&](int64_t n, int64_t c, int64_t p) {
        const double x = a.value(n, c, p);
        CHECK_EQUAL(out.value(n, c, p), std::max(x, 0.0));
        CHECK_EQUAL(back.value(n, c, p), x > 0 ? b.value(n, c, p) : 0.0);
        const R exact = static_cast<R>(x) + static_cast<R>(b.value(n, c, p));
        CHECK_EQUAL(sum.value(n, c, p), value_of(stored<S>(static_cast<double>(exact))));
        CHECK_EQUAL(static_cast<double>(flat[(c * a.places + p) * row + kLane + n]), x);
        CHECK_EQUAL(again.value(n, c, p), x);
        double total = 0, size = 0;
        for (int64_t q = 0; q < a.places; ++q) {
          total += a.value(n, c, q) / 2;
          size += std::fabs(a.value(n, c, q));
        }
        CHECK_CLOSE(static_cast<double>(means[c * row + kLane + n]), total, 64 * unit * size);
        CHECK_CLOSE(spread.value(n, c, p), total / 4, 64 * unit * size + storage * std::fabs(total));
      });
      CHECK(again.clean());
      CHECK(spread.clean());
      const auto others_kept = [&](const std::vector<R>& all, int64_t rows) {
        for (int64_t i = 0; i < static_cast<int64_t>(all.size()); ++i) {
          const bool ours = i < rows * row && i % row >= kLane && i % row < 2 * kLane;
          if (!ours && !std::isnan(all[i])) return false;
        }
        return true;
      };
      CHECK(others_kept(flat, a.channels * a.places));
      CHECK(others_kept(means, a.channels));
      const int64_t n = 1 + round;
      const auto wide = normals<R>(numbers, n);
      std::vector<S> narrow(n);
      junk(narrow);
      kernels.narrow(wide.data(), narrow.data(), n);
      for (int64_t i = 0; i < n; ++i) CHECK_EQUAL(value_of(narrow[i]), value_of(stored<S>(static_cast<double>(wide[i]))));
    }
  });
}

TEST("bf16 is rounded to nearest and ties to even, into infinity, and through denormals where it is only stored") {
  each_table([]<typename S>(const LayerKernels<S>& kernels, double, double, Numbers&) {
    if constexpr (std::is_same_v<S, Bf16>) {
      constexpr uint32_t kFrom[] = {0x3f807fff, 0x3f808000, 0x3f808001, 0x3f818000, 0x3fffffff,
                                    0x7f7f7fff, 0x7f7f8000, 0x7f7fffff, 0x7f800000,
                                    0x00000001, 0x00008000, 0x00008001, 0x00018000, 0x00407fff, 0x007fffff};
      constexpr uint16_t kTo[] = {0x3f80, 0x3f80, 0x3f81, 0x3f82, 0x4000,
                                  0x7f7f, 0x7f80, 0x7f80, 0x7f80,
                                  0x0000, 0x0000, 0x0001, 0x0002, 0x0040, 0x0080};
      constexpr int64_t kCases = std::size(kFrom);
      const uint16_t minus = 0x8000;
      // Lengths that leave each case to whole vectors and to what is behind them.
      for (int64_t n = 1; n <= 50; ++n) {
        std::vector<float> wide(n);
        std::vector<Bf16> narrow(n);
        junk(narrow);
        for (int64_t i = 0; i < n; ++i) {
          wide[i] = std::bit_cast<float>(kFrom[(i + n) % kCases] | (i % 2 ? uint32_t{minus} << 16 : 0));
        }
        kernels.narrow(wide.data(), narrow.data(), n);
        for (int64_t i = 0; i < n; ++i) CHECK_EQUAL(int{narrow[i].bits}, int{kTo[(i + n) % kCases]} | (i % 2 ? minus : 0));
        for (int64_t i = 0; i < n; ++i) wide[i] = nan_of<float>(kNaNs[(i + n) % std::size(kNaNs)]);
        kernels.narrow(wide.data(), narrow.data(), n);
        for (int64_t i = 0; i < n; ++i) CHECK(std::isnan(value_of(narrow[i])));
      }
      // Sums: 1 and its successor with half of what is between them, and the largest number with a quarter, a half and all
      // of what is missing to 2^128.
      constexpr uint16_t kSums[][3] = {{0x3f80, 0x3b80, 0x3f80}, {0x3f81, 0x3b80, 0x3f82}, {0x7f7f, 0x7a80, 0x7f7f},
                                       {0x7f7f, 0x7b00, 0x7f80}, {0x7f7f, 0x7b80, 0x7f80}, {0x7f7f, 0x7f7f, 0x7f80}};
      for (const auto& [first, second, expected] : kSums) {
        for (const uint16_t sign : {uint16_t{0}, minus}) {
          const auto all = [&](uint16_t bits) { return std::vector<S>(kCell<S>, {static_cast<uint16_t>(bits | sign)}); };
          std::vector<S> sum(kCell<S>);
          junk(sum);
          kernels.add(all(first).data(), all(second).data(), sum.data(), kCell<S>);
          for (const Bf16& got : sum) CHECK_EQUAL(int{got.bits}, expected | sign);
        }
      }
    }
  });
}
