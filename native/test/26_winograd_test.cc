// Winograd's algorithm, of every instruction set that this CPU has and every storage type, against plain loops in double
// precision over random shapes: the product itself and, with the same tiles, the gradient of the weights.
#include "check.h"
#include "images.h"

using namespace lth;
using namespace lth::test;

namespace {

// Relative L2.
struct Distance {
  double off = 0, all = 0;
  void add(double got, double expected) {
    off += (got - expected) * (got - expected);
    all += expected * expected;
  }
  double relative() const { return std::sqrt(off / (all + 1e-300)); }
};

// Of which the output may have no place.
struct Shape {
  int64_t channels, units, height, width, padding_h, padding_w, out_height, out_width;
};

Shape shape(Numbers& numbers, int64_t most_units) {
  Shape s{};
  s.channels = 1 + numbers.below(36);
  s.units = 1 + numbers.below(most_units);
  s.height = 1 + numbers.below(9);
  s.width = 1 + numbers.below(9);
  s.padding_h = numbers.below(3);
  s.padding_w = numbers.below(3);
  s.out_height = s.height + 2 * s.padding_h - 2;
  s.out_width = s.width + 2 * s.padding_w - 2;
  return s;
}

// Weights' taps of kTile units, planes and their channels, as `winograd_weights` reads them.
template <typename S, typename F>
std::vector<S> transformed(const LayerKernels<S>& kernels, int64_t units, int64_t channels, F&& weight) {
  const int64_t planes = planes_of<S>(channels), n = planes * kTile * kPack<S>;
  std::vector<S> all(padded(units, kTile) / kTile * kWinogradPlaces * n);
  junk(all);
  for (int64_t tile = 0; tile * kTile < units; ++tile) {
    std::vector<Real<S>> taps(9 * n);
    for (int64_t u = 0; u < std::min(kTile, units - tile * kTile); ++u) {
      for (int64_t c = 0; c < channels; ++c) {
        for (int64_t t = 0; t < 9; ++t) {
          taps[t * n + (c / kPack<S> * kTile + u) * kPack<S> + c % kPack<S>] = static_cast<Real<S>>(weight(tile * kTile + u, c, t));
        }
      }
    }
    // In two parts, of which the second is no whole vector where the storage is a number for each channel.
    const int64_t part = planes / 2 * kTile * kPack<S>;
    for (const auto& [from, to] : {std::pair<int64_t, int64_t>{0, part}, {part, n}}) {
      std::vector<Real<S>> some;
      for (int64_t t = 0; t < 9; ++t) some.insert(some.end(), taps.begin() + t * n + from, taps.begin() + t * n + to);
      kernels.winograd_weights(some.data(), to - from, n, all.data() + tile * kWinogradPlaces * n + from);
    }
  }
  return all;
}

}  // namespace

TEST("Winograd's products are those of plain loops, for any size, padding and number of channels") {
  each_table([]<typename S>(const LayerKernels<S>& kernels, double, double storage, Numbers& numbers) {
    using R = Real<S>;
    // Of 16 terms that are rounded twice, and once more as they are stored.
    const double most = 4 * storage;
    for (int round = 0; round < 60; ++round) {
      const auto [channels, units, height, width, padding_h, padding_w, out_height, out_width] = shape(numbers, 40);
      if (out_height < 1 || out_width < 1) continue;
      Image<S> x(channels, height, width, 1 + numbers.below(kLane)), y(units, out_height, out_width, x.examples);
      x.fill(numbers);
      const auto weights = normals<R>(numbers, units * channels * 9);
      const auto bias = normals<R>(numbers, padded(units, kTile));
      const bool with_bias = numbers.below(2);
      const auto u = transformed<S>(kernels, units, channels, [&](int64_t k, int64_t c, int64_t t) { return weights[(k * channels + c) * 9 + t]; });
      const int64_t tiles = (out_width + 1) / 2, at_once = 1 + numbers.below(tiles), tile = (x.planes + numbers.below(2)) * kCell<S>;
      std::vector<S> v(kWinogradPlaces * at_once * tile);
      junk(y.data);
      for (int64_t row = 0; 2 * row < out_height; ++row) {
        for (int64_t first = 0; first < tiles; first += at_once) {
          const int64_t count = std::min(at_once, tiles - first);
          junk(v);
          kernels.winograd_inputs({x.data.data(), x.planes, height, width, padding_h, padding_w, x.places * kCell<S>, kCell<S>, row, first,
                                   count, 0, 4, v.data(), at_once * tile, tile, kCell<S>});
          kernels.winograd_convolve({v.data(), x.planes, at_once * tile, tile, u.data(), with_bias ? bias.data() : nullptr, row, first,
                                     count, y.data.data(), y.planes, out_height, out_width});
        }
      }
      Distance distance;
      y.each([&](int64_t n, int64_t k, int64_t p) {
        double sum = with_bias ? static_cast<double>(bias[k]) : 0;
        for (int64_t c = 0; c < channels; ++c) {
          for (int64_t t = 0; t < 9; ++t) {
            sum += static_cast<double>(weights[(k * channels + c) * 9 + t]) *
                   x.value(n, c, p / out_width - padding_h + t / 3, p % out_width - padding_w + t % 3);
          }
        }
        distance.add(y.value(n, k, p), sum);
      });
      CHECK_CLOSE(distance.relative(), 0, most);
      if (!with_bias) CHECK(y.clean());
    }
  });
}

TEST("Winograd's gradients of weights are those of plain loops, row by row of the places and added up") {
  each_table([]<typename S>(const LayerKernels<S>& kernels, double, double storage, Numbers& numbers) {
    using R = Real<S>;
    for (int round = 0; round < 40; ++round) {
      const auto [channels, units, height, width, padding_h, padding_w, out_height, out_width] = shape(numbers, 70);
      if (out_height < 1 || out_width < 1) continue;
      Image<S> x(channels, height, width, 1 + numbers.below(kLane)), dy(units, out_height, out_width, x.examples);
      x.fill(numbers);
      dy.fill(numbers);
      const int64_t in_tile = tile_units(units), of_channels = tile_channels(units, channels);
      const int64_t all_units = padded(units, in_tile), all_channels = padded(padded(channels, of_channels));
      std::vector<S> of_x(x.places * kLane * all_channels), of_dy(dy.places * kLane * all_units);
      kernels.turn(x.data.data(), x.planes, x.places, 0, x.places, all_channels, of_x.data());
      kernels.turn(dy.data.data(), dy.planes, dy.places, 0, dy.places, all_units, of_dy.data());
      const int64_t tiles = (out_width + 1) / 2, n = in_tile * of_channels;
      const int64_t number = padded(units, in_tile) / in_tile * (padded(channels, of_channels) / of_channels);
      std::vector<R> sums(number * kWinogradPlaces * n), taps(9 * n);
      junk(sums);
      const Window line{1, tiles, 1, tiles, 1, 1, 1, 1, 0, 0};
      for (int64_t side = 0; side < 4; ++side) {
        for (int64_t row = 0; 2 * row < out_height; ++row) {
          const auto of = [&](int64_t all, std::vector<S>& to) {
            WinogradTiles<S> t{};
            t.planes = kLane * all / kCell<S>;
            t.in_plane = t.plane = kCell<S>;
            t.in_place = t.tile = kLane * all;
            t.row = row;
            t.count = tiles;
            t.from = side;
            t.to = side + 1;
            t.place = tiles * t.tile;
            to.resize(kWinogradPlaces * t.place);
            junk(to);
            t.out = to.data();
            return t;
          };
          std::vector<S> v, z;
          WinogradTiles<S> of_inputs = of(all_channels, v), of_gradients = of(all_units, z);
          of_inputs.in = of_x.data();
          of_inputs.height = height;
          of_inputs.width = width;
          of_inputs.padding_h = padding_h;
          of_inputs.padding_w = padding_w;
          kernels.winograd_inputs(of_inputs);
          of_gradients.in = of_dy.data();
          of_gradients.height = out_height;
          of_gradients.width = out_width;
          kernels.winograd_gradients(of_gradients);
          for (int64_t place = 4 * side; place < 4 * side + 4; ++place) {
            int64_t tile = 0;
            for (int64_t u0 = 0; u0 < all_units; u0 += in_tile) {
              for (int64_t c0 = 0; c0 < channels; c0 += of_channels, ++tile) {
                kernels.weight_gradient({&line, 0, 1, v.data() + place * of_inputs.place, z.data() + place * of_gradients.place, 0, 0,
                                         all_channels, all_units, u0, c0, in_tile, of_channels, row > 0,
                                         sums.data() + (tile * kWinogradPlaces + place) * n});
              }
            }
          }
        }
      }
      Distance distance;
      int64_t tile = 0;
      for (int64_t u0 = 0; u0 < all_units; u0 += in_tile) {
        for (int64_t c0 = 0; c0 < channels; c0 += of_channels, ++tile) {
          junk(taps);
          kernels.winograd_taps(sums.data() + tile * kWinogradPlaces * n, n, taps.data());
          for (int64_t u = u0; u < u0 + in_tile; ++u) {
            for (int64_t c = c0; c < c0 + of_channels; ++c) {
              for (int64_t t = 0; t < 9; ++t) {
                const auto got = static_cast<double>(taps[(t * of_channels + c - c0) * in_tile + u - u0]);
                if (u >= units || c >= channels) {
                  CHECK(got == 0);
                  continue;
                }
                double sum = 0;
                dy.each([&](int64_t e, int64_t k, int64_t p) {
                  if (k != u) return;
                  sum += dy.value(e, k, p) * x.value(e, c, p / out_width - padding_h + t / 3, p % out_width - padding_w + t % 3);
                });
                distance.add(got, sum);
              }
            }
          }
        }
      }
      CHECK_CLOSE(distance.relative(), 0, 6 * storage);
    }
  });
}
