// The products of dense convolutions, of every instruction set that this CPU has and every storage type, against plain loops
// in double precision over random shapes.
#include "check.h"
#include "images.h"

using namespace lth;
using namespace lth::test;

TEST("convolutions and their gradients are those of plain loops, for any kernel, stride, padding and number of channels") {
  each_table([]<typename S>(const LayerKernels<S>& kernels, double unit, double storage, Numbers& numbers) {
    using R = Real<S>;
    for (int round = 0; round < 60; ++round) {
      const Window w = round == 0 ? kStem : window(numbers, 5);
      const int64_t taps = w.kernel_h * w.kernel_w, channels = 1 + numbers.below(36), units = 1 + numbers.below(70);
      Image<S> x(channels, w.height, w.width, 1 + numbers.below(kLane)), y(units, w.out_height, w.out_width, x.examples);
      Image<S> dy = y, dx = x;
      x.fill(numbers);
      dy.fill(numbers);
      const auto weights = normals<S>(numbers, units * channels * taps);
      const auto weight = [&](int64_t u, int64_t c, int64_t t) { return weights[(u * channels + c) * taps + t]; };
      auto bias = normals<R>(numbers, padded(units, kTile));
      for (size_t u = units; u < bias.size(); ++u) bias[u] = 0;
      const bool with_bias = numbers.below(2), pairs = numbers.below(2);
      // f(example, unit, output place, channel, input row, input column, tap) for every product.
      const auto products = [&](auto&& f) {
        y.each([&](int64_t n, int64_t u, int64_t p) {
          const int64_t top = p / w.out_width * w.stride_h - w.padding_h, left = p % w.out_width * w.stride_w - w.padding_w;
          for (int64_t c = 0; c < channels; ++c) {
            for (int64_t t = 0; t < taps; ++t) {
              const int64_t row = top + t / w.kernel_w, column = left + t % w.kernel_w;
              if (row >= 0 && column >= 0 && row < w.height && column < w.width) f(n, u, p, c, row * w.width + column, t);
            }
          }
        });
      };
      std::vector<double> of_y(units * y.places * kLane), of_dx(channels * x.places * kLane), of_dw(weights.size());
      std::vector<double> size_y(of_y.size()), size_dx(of_dx.size()), size_dw(of_dw.size());
      products([&](int64_t n, int64_t u, int64_t p, int64_t c, int64_t q, int64_t t) {
        const double a = value_of(weight(u, c, t)) * x.value(n, c, q), b = value_of(weight(u, c, t)) * dy.value(n, u, p);
        const double d = x.value(n, c, q) * dy.value(n, u, p);
        of_y[(u * y.places + p) * kLane + n] += a;
        size_y[(u * y.places + p) * kLane + n] += std::fabs(a);
        of_dx[(c * x.places + q) * kLane + n] += b;
        size_dx[(c * x.places + q) * kLane + n] += std::fabs(b);
        of_dw[(u * channels + c) * taps + t] += d;
        size_dw[(u * channels + c) * taps + t] += std::fabs(d);
      });
      // Sums of so many terms, in whatever order.
      const double slack = unit * 64;
      junk(y.data, dx.data);

      const AxisPlan rows = AxisPlan::forward(w.height, w.out_height, w.kernel_h, w.stride_h, w.padding_h, false);
      const AxisPlan columns = AxisPlan::forward(w.width, w.out_width, w.kernel_w, w.stride_w, w.padding_w, pairs);
      kernels.convolve(convolution(x, rows, columns, w, packed<S>(units, channels, taps, weight), with_bias ? bias.data() : nullptr, y));
      y.each([&](int64_t n, int64_t u, int64_t p) {
        const int64_t i = (u * y.places + p) * kLane + n;
        const double expected = of_y[i] + (with_bias ? static_cast<double>(bias[u]) : 0);
        CHECK_CLOSE(y.value(n, u, p), expected, slack * (size_y[i] + 3) + storage * std::fabs(expected));
      });
      CHECK(y.clean(!with_bias));

      const AxisPlan rows_back = AxisPlan::backward(w.height, w.out_height, w.kernel_h, w.stride_h, w.padding_h, false);
      const AxisPlan columns_back = AxisPlan::backward(w.width, w.out_width, w.kernel_w, w.stride_w, w.padding_w, pairs);
      const auto turned = [&](int64_t c, int64_t u, int64_t t) { return weight(u, c, t); };
      kernels.convolve(convolution(dy, rows_back, columns_back, w, packed<S>(channels, units, taps, turned), nullptr, dx));
      dx.each([&](int64_t n, int64_t c, int64_t p) {
        const int64_t i = (c * x.places + p) * kLane + n;
        CHECK_CLOSE(dx.value(n, c, p), of_dx[i], slack * (size_dx[i] + 1) + storage * std::fabs(of_dx[i]));
      });
      CHECK(dx.clean());

      // The weights' gradient in two bands of rows, from memory that starts at the first row that each needs.
      const int64_t in_tile = tile_units(units), of_channels = tile_channels(units, channels);
      const int64_t all_units = padded(units, in_tile), all_channels = padded(channels, of_channels);
      const int64_t middle = numbers.below(w.out_height + 1);
      std::vector<R> tile(taps * in_tile * of_channels);
      std::vector<S> of_x, of_dy;
      for (int64_t u0 = 0; u0 < all_units; u0 += in_tile) {
        for (int64_t c0 = 0; c0 < all_channels; c0 += of_channels) {
          bool add = false;
          junk(tile);
          for (const auto& [y0, y1] : {std::pair<int64_t, int64_t>{0, middle}, {middle, w.out_height}}) {
            if (y0 == y1) continue;
            const int64_t first = std::clamp<int64_t>(y0 * w.stride_h - w.padding_h, 0, w.height);
            const int64_t last = std::clamp<int64_t>((y1 - 1) * w.stride_h - w.padding_h + w.kernel_h, first, w.height);
            of_x.resize((last - first) * w.width * kLane * all_channels);
            of_dy.resize((y1 - y0) * w.out_width * kLane * all_units);
            junk(of_x, of_dy);
            kernels.turn(x.data.data(), x.planes, x.places, first * w.width, (last - first) * w.width, all_channels, of_x.data());
            kernels.turn(dy.data.data(), dy.planes, dy.places, y0 * w.out_width, (y1 - y0) * w.out_width, all_units, of_dy.data());
            kernels.weight_gradient({&w, y0, y1, of_x.data(), of_dy.data(), first, y0, all_channels, all_units, u0, c0, in_tile,
                                     of_channels, add, tile.data()});
            add = true;
          }
          for (int64_t u = u0; u < u0 + in_tile; ++u) {
            for (int64_t c = c0; c < c0 + of_channels; ++c) {
              for (int64_t t = 0; t < taps; ++t) {
                const double got = static_cast<double>(tile[(t * of_channels + c - c0) * in_tile + u - u0]);
                const bool real = u < units && c < channels;
                const int64_t i = (u * channels + c) * taps + t;
                CHECK_CLOSE(got, real ? of_dw[i] : 0, real ? 4 * slack * (size_dw[i] + 1) : 0);
              }
            }
          }
        }
      }
    }
  });
}
