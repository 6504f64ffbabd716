// The CUDA kernels, emulated, against plain loops in double precision over random shapes.
#include <bit>
#include <limits>

#include "check.h"
#include "close.h"
#include "data/dropout.h"
#include "emulate.h"
#include "numbers.h"

using namespace lth;
using namespace lth::test;
namespace dev = lth::device;

namespace {

constexpr float kNone = std::numeric_limits<float>::quiet_NaN();

double number(dev::Bf16 bits) { return static_cast<double>(std::bit_cast<float>(static_cast<uint32_t>(bits) << 16)); }

std::vector<dev::Bf16> images(Numbers& numbers, int64_t n, double shift = 0) {
  std::vector<dev::Bf16> out(static_cast<size_t>(n));
  for (dev::Bf16& x : out) x = dev::rounded(static_cast<float>(numbers.normal() + shift));
  return out;
}

struct Shape {
  int64_t places;
  int channels;
};
Shape shape_of(Numbers& numbers) {
  const int channels[] = {8, 16, 24, 32, 40, 64, 96, 512, 2056};
  const int chosen = channels[numbers.below(9)];
  return {1 + numbers.below(chosen > 512 ? 20 : chosen > 100 ? 100 : 1000), chosen};
}

// Any that fits, as large images have them.
int vectors_of(Numbers& numbers, int channels) {
  const int vectors = 2 << numbers.below(3);
  return channels % (vectors * dev::kVector) == 0 ? vectors : 2;
}

// Everything of one batch norm, as the executor has it.
struct BatchNorm {
  Shape shape;
  int vectors;  // that a block sums
  std::vector<dev::Bf16> x, other, y;
  std::vector<float> gamma, beta, running_mean, running_variance, mean, inverse, scale, offset, partial;
  std::vector<unsigned> done;
  dev::Moments moments{};
  dev::Normalise p{};

  BatchNorm(Numbers& numbers, bool with_other, bool relu, double shift)
      : shape(shape_of(numbers)), vectors(vectors_of(numbers, shape.channels)), x(images(numbers, shape.places * shape.channels, shift)) {
    if (with_other) other = images(numbers, shape.places * shape.channels);
    y.assign(x.size(), 0x7fc0);
    gamma = numbers.normals<float>(shape.channels);
    beta = numbers.normals<float>(shape.channels);
    running_mean = numbers.normals<float>(shape.channels);
    running_variance = numbers.normals<float>(shape.channels);
    mean.assign(gamma.size(), kNone);
    inverse = scale = offset = mean;
    done.assign(static_cast<size_t>(dev::counters(shape.channels)), 0);
    partial.assign(static_cast<size_t>(dev::partial_sums(shape.channels)), kNone);
    moments = {x.data(),     shape.places, shape.channels,      1e-5f,
               0.1f,         gamma.data(), beta.data(),         running_mean.data(),
               running_variance.data(), mean.data(), inverse.data(), scale.data(),
               offset.data(), partial.data(), done.data()};
    p = {x.data(), with_other ? other.data() : nullptr, y.data(), shape.places, shape.channels, relu, scale.data(), offset.data()};
  }

  // Few blocks, so that a thread has many places.
  dev::Grid sums() const { return few(dev::grid_of_sums(shape.places, shape.channels, vectors)); }
  dev::Grid pass() const { return few(dev::grid_of_pass(shape.places, shape.channels)); }
  static dev::Grid few(dev::Grid grid) { return {std::min(grid.x, 3u), grid.y, 1}; }
  void forward() {
    emulated::launch(sums(), [&] { vectors == 2 ? dev::moments_2(moments) : vectors == 4 ? dev::moments_4(moments) : dev::moments_8(moments); });
    emulated::launch(pass(), [&] { dev::normalise(p); });
    for (unsigned one : done) CHECK_EQUAL(one, 0u);
  }
  double at(const std::vector<dev::Bf16>& of, int64_t place, int c) const {
    return number(of[static_cast<size_t>(place * shape.channels + c)]);
  }
};

}  // namespace

TEST("batch norm with a sum and ReLU, also where the mean is far larger than the deviation") {
  Numbers numbers(1);
  for (int round = 0; round < 18; ++round) {
    BatchNorm b(numbers, round % 3 == 0, round % 2 == 0, round % 4 == 1 ? 50 : 0);
    const auto running = b.running_mean, variances = b.running_variance;
    b.forward();
    const auto n = static_cast<double>(b.shape.places);
    for (int c = 0; c < b.shape.channels; ++c) {
      double mean = 0, variance = 0;
      for (int64_t i = 0; i < b.shape.places; ++i) mean += b.at(b.x, i, c) / n;
      for (int64_t i = 0; i < b.shape.places; ++i) variance += std::pow(b.at(b.x, i, c) - mean, 2) / n;
      const double inverse = 1 / std::sqrt(variance + 1e-5);
      CHECK_CLOSE(value_of(b.mean[c]), mean, 1e-5 * (std::fabs(mean) + 1));
      CHECK_CLOSE(value_of(b.inverse[c]), inverse, 1e-4 * inverse);
      CHECK_CLOSE(value_of(b.running_mean[c]), 0.9 * value_of(running[c]) + 0.1 * mean, 1e-5 * (std::fabs(mean) + 1));
      const double unbiased = n > 1 ? variance * n / (n - 1) : 0;
      CHECK_CLOSE(value_of(b.running_variance[c]), 0.9 * value_of(variances[c]) + 0.1 * unbiased, 1e-4 * (variance + 1));
      for (int64_t i = 0; i < b.shape.places; ++i) {
        double y = (b.at(b.x, i, c) - mean) * inverse * value_of(b.gamma[c]) + value_of(b.beta[c]);
        if (b.p.other) y += b.at(b.other, i, c);
        if (b.p.relu && y <= 0) y = 0;
        CHECK_CLOSE(b.at(b.y, i, c), y, 0.005 * std::fabs(y) + 1e-3);
      }
    }
  }
}

TEST("what is no number stays none") {
  Numbers numbers(2);
  BatchNorm b(numbers, false, true, 0);
  b.x[3] = 0x7fc0;
  b.forward();
  CHECK(std::isnan(b.at(b.y, 0, 3)));
  CHECK(!std::isnan(b.at(b.y, 0, 2)));
}

TEST("gradients of batch norm, of its scale and shift and of the other term") {
  Numbers numbers(3);
  for (int round = 0; round < 18; ++round) {
    const bool with_other = round % 3 == 0, relu = round % 2 == 0, two = round % 4 < 2;
    BatchNorm b(numbers, with_other, relu, 0);
    b.forward();
    const auto size = static_cast<int64_t>(b.x.size());
    const auto d0 = images(numbers, size), d1 = images(numbers, size);
    std::vector<dev::Bf16> dx(b.x.size(), 0x7fc0), d_other = dx;
    std::vector<float> d_gamma(b.gamma.size(), kNone), d_beta = d_gamma;
    const bool relu_of_x = relu && !with_other;
    dev::OfBatchNorm of = {d0.data(), two ? d1.data() : nullptr, relu && !relu_of_x ? b.y.data() : nullptr, b.x.data(), b.shape.places,
                           b.shape.channels, relu_of_x ? b.scale.data() : nullptr, relu_of_x ? b.offset.data() : nullptr};
    std::vector<float> of_d(b.gamma.size(), kNone), of_x = of_d, offset = of_d;
    const dev::GradientMoments moments = {of, with_other ? d_other.data() : nullptr, b.gamma.data(), b.mean.data(), b.inverse.data(),
                                          d_gamma.data(), d_beta.data(), of_d.data(), of_x.data(), offset.data(),
                                          b.partial.data(), b.done.data()};
    emulated::launch(b.sums(), [&] {
      b.vectors == 2 ? dev::gradient_moments_2(moments) : b.vectors == 4 ? dev::gradient_moments_4(moments) : dev::gradient_moments_8(moments);
    });
    if (with_other) of = {d_other.data(), nullptr, nullptr, b.x.data(), b.shape.places, b.shape.channels, nullptr, nullptr};
    const dev::NormaliseBackward pass = {of, dx.data(), of_d.data(), of_x.data(), offset.data()};
    emulated::launch(b.pass(), [&] { dev::normalise_backward(pass); });
    const auto n = static_cast<double>(b.shape.places);
    for (int c = 0; c < b.shape.channels; ++c) {
      const double mean = value_of(b.mean[c]), inverse = value_of(b.inverse[c]);
      double sum = 0, product = 0, sizes = 0;
      const auto gated = [&](int64_t i) {
        const double d = b.at(d0, i, c) + (two ? b.at(d1, i, c) : 0);
        return relu && b.at(b.y, i, c) <= 0 ? 0 : d;
      };
      for (int64_t i = 0; i < b.shape.places; ++i) {
        const double normal = (b.at(b.x, i, c) - mean) * inverse;
        sum += gated(i);
        product += gated(i) * normal;
        sizes += std::fabs(gated(i)) * (1 + std::fabs(normal));
      }
      // Rounded to bf16 before they are summed where they are of two tensors.
      const double limit = two ? 4e-3 : 1e-5;
      CHECK_CLOSE(value_of(d_beta[c]), sum, limit * sizes + 1e-6);
      CHECK_CLOSE(value_of(d_gamma[c]), product, limit * sizes + 1e-6);
      for (int64_t i = 0; i < b.shape.places; ++i) {
        const double normal = (b.at(b.x, i, c) - mean) * inverse, d = gated(i);
        const double scale = std::fabs(value_of(b.gamma[c]) * inverse);
        const double expected = value_of(b.gamma[c]) * inverse * (d - sum / n - normal * product / n);
        CHECK_CLOSE(b.at(dx, i, c), expected, scale * (0.01 * (std::fabs(d) + std::fabs(normal) * sizes / n + sizes / n) + 1e-3));
        if (with_other) CHECK_CLOSE(b.at(d_other, i, c), d, 0.004 * std::fabs(d));
      }
    }
  }
}

TEST("what a block sums is wide where images are large and their channels fill it") {
  CHECK_EQUAL(dev::summed_vectors(128 * 32 * 32, 64), 2);
  CHECK_EQUAL(dev::summed_vectors(256 * 56 * 56, 256), 8);
  CHECK_EQUAL(dev::summed_vectors(256 * 73 * 73, 96), 4);
  CHECK_EQUAL(dev::summed_vectors(256 * 149 * 149, 40), 2);
}

TEST("max pooling and its gradient: windows that overlap, leave gaps or are cut off, the first of equals, what is no number") {
  Numbers numbers(12);
  for (int round = 0; round < 40; ++round) {
    const auto of = [&](int64_t most) { return 1 + static_cast<int>(numbers.below(most)); };
    dev::Windows w{};
    w.examples = of(3);
    w.channels = 8 * of(3);
    w.kernel_h = of(4);
    w.kernel_w = round == 7 ? 64 : of(4);
    w.stride_h = of(4);
    w.stride_w = of(4);
    w.padding_h = static_cast<int>(numbers.below(w.kernel_h / 2 + 1));
    w.padding_w = static_cast<int>(numbers.below(w.kernel_w / 2 + 1));
    w.height = w.kernel_h + static_cast<int>(numbers.below(12));
    w.width = w.kernel_w + static_cast<int>(numbers.below(12));
    // Rounded up as ceil mode does, where the last window begins inside.
    const auto extent = [&](int size, int kernel, int stride, int padding, bool ceil) {
      int out = (size + 2 * padding - kernel + (ceil ? stride - 1 : 0)) / stride + 1;
      if (ceil && (out - 1) * stride >= size + padding) --out;
      return out;
    };
    w.out_height = extent(w.height, w.kernel_h, w.stride_h, w.padding_h, round % 2);
    w.out_width = extent(w.width, w.kernel_w, w.stride_w, w.padding_w, round % 2);
    auto x = images(numbers, int64_t{w.examples} * w.height * w.width * w.channels);
    // Few values, so that there are equals.
    if (round % 3 == 0) for (dev::Bf16& one : x) one = dev::rounded(static_cast<float>(std::round(number(one))));
    if (round % 5 == 0) x[x.size() / 2] = 0x7fc0;
    if (round % 5 == 1) for (size_t i = 0; i < x.size(); i += 3) x[i] = 0xff80;  // -inf
    const auto size = static_cast<size_t>(w.examples * w.out_height * w.out_width * w.channels);
    std::vector<dev::Bf16> y(size, 0x4200), dx(x.size(), 0x7fc0);
    std::vector<unsigned char> which(size, 0xee);
    const dev::MaxPool p = {x.data(), y.data(), which.data(), w};
    emulated::launch({dev::blocks_for(static_cast<int64_t>(size / dev::kVector)), 1, 1}, [&] { dev::max_pool(p); });
    const auto dy = images(numbers, static_cast<int64_t>(size));
    const dev::MaxPoolBackward back = {dy.data(), which.data(), dx.data(), w};
    emulated::launch({dev::blocks_for(static_cast<int64_t>(x.size() / dev::kVector)), 1, 1}, [&] { dev::max_pool_backward(back); });
    std::vector<double> expected(x.size(), 0), sizes(x.size(), 0);
    size_t i = 0;
    for (int n = 0; n < w.examples; ++n) {
      for (int oy = 0; oy < w.out_height; ++oy) {
        for (int ox = 0; ox < w.out_width; ++ox) {
          for (int c = 0; c < w.channels; ++c, ++i) {
            size_t best = 0;
            bool any = false;
            for (int yy = std::max(0, oy * w.stride_h - w.padding_h); yy < std::min(w.height, oy * w.stride_h - w.padding_h + w.kernel_h); ++yy) {
              for (int xx = std::max(0, ox * w.stride_w - w.padding_w); xx < std::min(w.width, ox * w.stride_w - w.padding_w + w.kernel_w); ++xx) {
                const auto one = static_cast<size_t>(((n * w.height + yy) * w.width + xx) * w.channels + c);
                if (!any || number(x[one]) > number(x[best]) || std::isnan(number(x[one]))) best = one;
                any = true;
              }
            }
            CHECK(any);
            CHECK(std::isnan(number(x[best])) ? std::isnan(number(y[i])) : y[i] == x[best]);
            expected[best] += number(dy[i]);
            sizes[best] += std::fabs(number(dy[i]));
          }
        }
      }
    }
    for (i = 0; i < x.size(); ++i) CHECK_CLOSE(number(dx[i]), expected[i], 0.004 * std::fabs(expected[i]) + 1e-6 * sizes[i]);
  }
}

TEST("gradients of convolutions' weights by tensor cores: channels, kernels, strides and padding of all kinds") {
  Numbers numbers(4);
  const int channels[] = {3, 8, 13, 16, 24, 32, 40};
  const int kernels[][2] = {{3, 3}, {1, 1}, {5, 5}, {1, 7}, {2, 3}};
  for (int round = 0; round < 40; ++round) {
    const auto* kernel = kernels[numbers.below(5)];
    dev::WeightGradient p{};
    p.examples = 1 + static_cast<int>(numbers.below(3));
    p.channels = channels[numbers.below(7)];
    p.units = channels[numbers.below(7)];
    p.kernel_h = kernel[0];
    p.kernel_w = kernel[1];
    p.stride_h = 1 + static_cast<int>(numbers.below(2));
    p.stride_w = 1 + static_cast<int>(numbers.below(2));
    p.padding_h = static_cast<int>(numbers.below(p.kernel_h));
    p.padding_w = static_cast<int>(numbers.below(p.kernel_w));
    p.height = p.kernel_h + static_cast<int>(numbers.below(14));
    p.width = p.kernel_w + static_cast<int>(numbers.below(round % 8 == 0 ? 60 : 14));
    p.out_height = (p.height + 2 * p.padding_h - p.kernel_h) / p.stride_h + 1;
    p.out_width = (p.width + 2 * p.padding_w - p.kernel_w) / p.stride_w + 1;
    const auto x = images(numbers, int64_t{p.examples} * p.height * p.width * p.channels);
    const auto dy = images(numbers, int64_t{p.examples} * p.out_height * p.out_width * p.units);
    auto plan = dev::plan_weight_gradient(p);
    CHECK(plan.has_value());
    if (!plan) continue;
    if (round % 2) plan->grid.x = std::min(plan->grid.x, 3u);  // several bands a block
    std::vector<float> partial(static_cast<size_t>(plan->grid.x * plan->size), kNone), gradient(static_cast<size_t>(plan->size), kNone);
    p.x = x.data();
    p.dy = dy.data();
    p.partial = partial.data();
    emulated::launch(plan->grid, [&] {
      const int which = plan->unit_tiles * 100 + plan->channel_tiles * 10 + plan->taps;
      if (which == 111) dev::weight_gradient_111(p);
      if (which == 121) dev::weight_gradient_121(p);
      if (which == 211) dev::weight_gradient_211(p);
      if (which == 221) dev::weight_gradient_221(p);
      if (which == 119) dev::weight_gradient_119(p);
      if (which == 129) dev::weight_gradient_129(p);
      if (which == 219) dev::weight_gradient_219(p);
      if (which == 229) dev::weight_gradient_229(p);
    });
    const int taps = p.kernel_h * p.kernel_w;
    // The second of two entries: the first is left to another.
    std::vector<float> of_another(40, 1), to_another(40, 0);
    const dev::Join entries[] = {{of_another.data(), to_another.data(), 1, 5, 8, 1, 0},
                                 {partial.data(), gradient.data(), static_cast<int>(plan->grid.x), p.units, p.channels, taps, 1}};
    const dev::JoinGradients join = {entries, 2};
    emulated::launch({1 + static_cast<unsigned>(dev::ceil_div(plan->size, dev::kJoined)), 1, 1}, [&] { dev::join_gradients(join); });
    CHECK_EQUAL(to_another, of_another);
    double error = 0, size = 0;
    for (int k = 0; k < p.units; ++k) {
      for (int c = 0; c < p.channels; ++c) {
        for (int tap = 0; tap < taps; ++tap) {
          double sum = 0;
          for (int n = 0; n < p.examples; ++n) {
            for (int y = 0; y < p.out_height; ++y) {
              for (int z = 0; z < p.out_width; ++z) {
                const int from_y = y * p.stride_h - p.padding_h + tap / p.kernel_w;
                const int from_x = z * p.stride_w - p.padding_w + tap % p.kernel_w;
                if (from_y < 0 || from_y >= p.height || from_x < 0 || from_x >= p.width) continue;
                sum += number(x[static_cast<size_t>(((int64_t{n} * p.height + from_y) * p.width + from_x) * p.channels + c)]) *
                       number(dy[static_cast<size_t>(((int64_t{n} * p.out_height + y) * p.out_width + z) * p.units + k)]);
              }
            }
          }
          const double got = value_of(gradient[static_cast<size_t>((k * p.channels + c) * taps + tap)]);
          error += std::pow(got - sum, 2);
          size += sum * sum;
        }
      }
    }
    CHECK_CLOSE(std::sqrt(error / size), 0, 1e-6);
  }
}

TEST("convolutions of few channels by tensor cores") {
  Numbers numbers(9);
  for (int round = 0; round < 36; ++round) {
    dev::Convolve p{};
    const int kernel_h = round % 3 ? 3 : 1;
    p.examples = 1 + static_cast<int>(numbers.below(3));
    const int most = round % 4 < 2 ? 16 : 32;
    p.channels = 1 + static_cast<int>(numbers.below(most));
    p.units = 1 + static_cast<int>(numbers.below(most));
    if (round % 2) p.channels = p.units = most;
    p.padding_h = static_cast<int>(numbers.below(kernel_h));
    p.padding_w = static_cast<int>(numbers.below(kernel_h));
    p.height = kernel_h + static_cast<int>(numbers.below(20));
    p.width = kernel_h + static_cast<int>(numbers.below(round % 6 == 0 ? 60 : 20));
    p.out_height = p.height + 2 * p.padding_h - kernel_h + 1;
    p.out_width = p.width + 2 * p.padding_w - kernel_h + 1;
    const int taps = kernel_h * kernel_h;
    const auto x = images(numbers, int64_t{p.examples} * p.height * p.width * p.channels);
    const auto weights = images(numbers, int64_t{p.units} * taps * p.channels);
    std::vector<dev::Bf16> y(static_cast<size_t>(p.examples * p.out_height * p.out_width * p.units), 0x7fc0);
    p.x = x.data();
    p.weights = weights.data();
    p.y = y.data();
    auto plan = dev::plan_convolve(p, kernel_h, kernel_h);
    CHECK(plan.has_value());
    if (!plan) continue;
    CHECK_EQUAL(plan->taps, taps);
    // Of what it makes, the statistics for a batch norm.
    const int64_t places = int64_t{p.examples} * p.out_height * p.out_width;
    auto running_mean = numbers.normals<float>(p.units), running_variance = numbers.normals<float>(p.units);
    const auto means = running_mean, variances = running_variance, gamma = numbers.normals<float>(p.units), beta = numbers.normals<float>(p.units);
    std::vector<float> mean(gamma.size(), kNone), inverse = mean, scale = mean, offset = mean;
    std::vector<float> sums(static_cast<size_t>(dev::partial_sums(p.units)), kNone);
    unsigned done = 0;
    p.sums_up = round % 3 != 1;
    const float momentum = round % 2 ? 0.1f : 0;
    if (p.sums_up) {
      p.moments = {nullptr, places, p.units, 1e-5f, momentum, gamma.data(), beta.data(), running_mean.data(), running_variance.data(),
                   mean.data(), inverse.data(), scale.data(), offset.data(), sums.data(), &done};
    }
    if (round % 5 == 0) plan->grid.x = std::min(plan->grid.x, 2u);
    emulated::launch(plan->grid, [&] {
      if (plan->tiles == 1) taps == 1 ? dev::convolve_11(p) : dev::convolve_19(p);
      if (plan->tiles == 2) taps == 1 ? dev::convolve_21(p) : dev::convolve_29(p);
    });
    double error = 0, size = 0;
    for (int n = 0; n < p.examples; ++n) {
      for (int yy = 0; yy < p.out_height; ++yy) {
        for (int xx = 0; xx < p.out_width; ++xx) {
          for (int k = 0; k < p.units; ++k) {
            double sum = 0;
            for (int tap = 0; tap < taps; ++tap) {
              const int from_y = yy - p.padding_h + tap / kernel_h, from_x = xx - p.padding_w + tap % kernel_h;
              if (from_y < 0 || from_y >= p.height || from_x < 0 || from_x >= p.width) continue;
              for (int c = 0; c < p.channels; ++c) {
                sum += number(x[static_cast<size_t>(((n * p.height + from_y) * p.width + from_x) * p.channels + c)]) *
                       number(weights[static_cast<size_t>((k * taps + tap) * p.channels + c)]);
              }
            }
            const double got = number(y[static_cast<size_t>(((n * p.out_height + yy) * p.out_width + xx) * p.units + k)]);
            error += std::pow(got - sum, 2);
            size += sum * sum;
          }
        }
      }
    }
    for (int k = 0; p.sums_up && k < p.units; ++k) {
      const auto u = static_cast<size_t>(k);
      double sum = 0, squares = 0;
      for (int64_t i = 0; i < places; ++i) sum += number(y[static_cast<size_t>(i * p.units + k)]) / static_cast<double>(places);
      for (int64_t i = 0; i < places; ++i) {
        squares += std::pow(number(y[static_cast<size_t>(i * p.units + k)]) - sum, 2) / static_cast<double>(places);
      }
      const double deviation = std::sqrt(squares + 1e-5);
      CHECK_CLOSE(value_of(mean[u]), sum, 1e-5 * (std::fabs(sum) + deviation + 1));
      CHECK_CLOSE(value_of(inverse[u]), 1 / deviation, 1e-4 / deviation);
      CHECK_CLOSE(value_of(scale[u]), value_of(gamma[u]) * value_of(inverse[u]), 1e-5 / deviation);
      CHECK_CLOSE(value_of(offset[u]), value_of(beta[u]) - value_of(mean[u]) * value_of(scale[u]), 1e-4 * (1 + std::fabs(sum) / deviation));
      CHECK_CLOSE(value_of(running_mean[u]), value_of(means[u]) + value_of(momentum) * (sum - value_of(means[u])), 1e-5 * (std::fabs(sum) + 1));
      const double unbiased = places > 1 ? squares * static_cast<double>(places) / static_cast<double>(places - 1) : 0;
      CHECK_CLOSE(value_of(running_variance[u]), value_of(variances[u]) + value_of(momentum) * (unbiased - value_of(variances[u])), 1e-4 * (unbiased + 1));
    }
    if (p.sums_up) CHECK_EQUAL(done, 0u);
    CHECK_CLOSE(std::sqrt(error / size), 0, 0.003);  // of bf16: half a unit in its last place is 0.002 to 0.004
  }
}

TEST("a convolution of stride 2 is one of stride 1 over folded pictures, and its weights' gradient comes back unfolded") {
  Numbers numbers(13);
  for (int round = 0; round < 30; ++round) {
    const auto of = [&](int64_t most) { return 1 + static_cast<int>(numbers.below(most)); };
    dev::Assemble a{};
    const int kernel_h = of(7), kernel_w = of(7), padding_h = static_cast<int>(numbers.below(kernel_h)), padding_w = static_cast<int>(numbers.below(kernel_w));
    a.examples = of(3);
    a.channels = of(4);
    a.height = kernel_h + static_cast<int>(numbers.below(9));
    a.width = kernel_w + static_cast<int>(numbers.below(9));
    a.cropped = round % 2;
    const int units = of(9), rows = 5, plane = a.height * a.width;
    const int out_h = (a.height + 2 * padding_h - kernel_h) / 2 + 1, out_w = (a.width + 2 * padding_w - kernel_w) / 2 + 1;
    std::vector<unsigned char> bytes(static_cast<size_t>(rows * a.channels * plane));
    for (unsigned char& one : bytes) one = static_cast<unsigned char>(numbers.below(256));
    std::vector<long long> labels, got_labels(static_cast<size_t>(a.examples), -1), got_folded = got_labels;
    for (int i = 0; i < rows; ++i) labels.push_back(static_cast<int>(numbers.below(10)));
    std::vector<int> where(static_cast<size_t>(4 * a.examples));
    for (int n = 0; n < a.examples; ++n) {
      where[static_cast<size_t>(n)] = static_cast<int>(numbers.below(rows));
      for (int i : {1, 2}) where[static_cast<size_t>(i * a.examples + n)] = static_cast<int>(numbers.below(5)) - 2;
      where[static_cast<size_t>(3 * a.examples + n)] = static_cast<int>(numbers.below(2));
    }
    const auto scale = numbers.normals<float>(a.channels), shift = numbers.normals<float>(a.channels);
    std::vector<dev::Bf16> x(static_cast<size_t>(a.examples * plane * a.channels), 0x7fc0);
    a.images = bytes.data();
    a.labels = labels.data();
    a.where = where.data();
    a.scale = scale.data();
    a.shift = shift.data();
    a.x = x.data();
    a.labels_out = got_labels.data();
    emulated::launch({dev::blocks_for(a.examples * plane), 1, 1}, [&] { dev::assemble(a); });
    const int folded_kernel_h = (kernel_h + 1) / 2, folded_kernel_w = (kernel_w + 1) / 2;
    const int height = out_h + folded_kernel_h - 1, width = out_w + folded_kernel_w - 1;
    std::vector<dev::Bf16> folded(static_cast<size_t>(a.examples * height * width * dev::kFolded), 0x7fc0);
    dev::AssembleFolded f = {a, height, width, padding_h, padding_w};
    f.of.x = folded.data();
    f.of.labels_out = got_folded.data();
    emulated::launch({dev::blocks_for(a.examples * height * width), 1, 1}, [&] { dev::assemble_folded(f); });
    CHECK_EQUAL(got_folded, got_labels);
    const dev::FoldedWeights w = {units, a.channels, kernel_h, kernel_w};
    auto weights = numbers.normals<float>(units * a.channels * kernel_h * kernel_w);
    for (float& one : weights) one = static_cast<float>(number(dev::rounded(one)));
    const int places = units * folded_kernel_h * folded_kernel_w;
    std::vector<dev::Bf16> to(static_cast<size_t>(places * dev::kFolded), 0x7fc0);
    const dev::FoldWeights fold = {w, weights.data(), to.data()};
    emulated::launch({dev::blocks_for(places), 1, 1}, [&] { dev::fold_weights(fold); });
    std::vector<float> back(weights.size(), kNone);
    const dev::UnfoldGradient unfold = {w, to.data(), back.data()};
    emulated::launch({dev::blocks_for(static_cast<int64_t>(back.size())), 1, 1}, [&] { dev::unfold_gradient(unfold); });
    CHECK_EQUAL(back, weights);
    for (int n = 0; n < a.examples; ++n) {
      for (int oy = 0; oy < out_h; ++oy) {
        for (int ox = 0; ox < out_w; ++ox) {
          for (int k = 0; k < units; ++k) {
            double plain = 0, of_folded = 0;
            for (int r = 0; r < kernel_h; ++r) {
              for (int q = 0; q < kernel_w; ++q) {
                const int yy = 2 * oy - padding_h + r, xx = 2 * ox - padding_w + q;
                if (yy < 0 || yy >= a.height || xx < 0 || xx >= a.width) continue;
                for (int c = 0; c < a.channels; ++c) {
                  plain += number(x[static_cast<size_t>((n * plane + yy * a.width + xx) * a.channels + c)]) *
                           value_of(weights[static_cast<size_t>(((k * a.channels + c) * kernel_h + r) * kernel_w + q)]);
                }
              }
            }
            for (int r = 0; r < folded_kernel_h; ++r) {
              for (int q = 0; q < folded_kernel_w; ++q) {
                for (int c = 0; c < dev::kFolded; ++c) {
                  of_folded += number(folded[static_cast<size_t>(((n * height + oy + r) * width + ox + q) * dev::kFolded + c)]) *
                               number(to[static_cast<size_t>(((k * folded_kernel_h + r) * folded_kernel_w + q) * dev::kFolded + c)]);
                }
              }
            }
            CHECK_CLOSE(of_folded, plain, 1e-9 * (std::fabs(plain) + 1));
          }
        }
      }
    }
  }
}

TEST("what dropout keeps is what the CPU draws") {
  Numbers numbers(14);
  for (int round = 0; round < 12; ++round) {
    const int layer = static_cast<int>(numbers.below(3));
    const int64_t elements = 1 + numbers.below(50);
    const double probability = static_cast<double>(numbers.below(100)) / 100;
    const auto noise = dropout_noise(static_cast<uint64_t>(round), 3, 4, static_cast<uint32_t>(5 + round));
    std::vector<int> rows;
    for (int n = 0; n < 7; ++n) rows.push_back(static_cast<int>(numbers.below(round % 2 ? 2'000'000'000 : 100)));
    const auto size = rows.size() * static_cast<size_t>(elements);
    std::vector<unsigned char> kept(size, 7), expected(size, 9);
    const dev::Drop p = {rows.data(), kept.data(), elements, static_cast<int>(rows.size()), {noise.numbers.key[0], noise.numbers.key[1]},
                         noise.epoch, static_cast<unsigned>(layer), dropped_below(probability)};
    emulated::launch({dev::blocks_for(static_cast<int64_t>(rows.size()) * dev::ceil_div(elements, 4)), 1, 1}, [&] { dev::drop(p); });
    for (size_t n = 0; n < rows.size(); ++n) {
      draw_dropout(noise, layer, rows[n], elements, probability,
                   [&](int64_t i, bool stays) { expected[n * static_cast<size_t>(elements) + static_cast<size_t>(i)] = stays; });
    }
    CHECK_EQUAL(kept, expected);
  }
}

TEST("a convolution whose band does not fit into shared memory has no plan") {
  dev::WeightGradient p{};
  p.examples = 1;
  p.channels = p.units = 64;
  p.kernel_h = p.kernel_w = 3;
  p.stride_h = p.stride_w = 1;
  p.padding_h = p.padding_w = 1;
  p.height = p.width = p.out_height = p.out_width = 224;
  CHECK(!dev::plan_weight_gradient(p));
}

TEST("the mean over places and its gradient") {
  Numbers numbers(10);
  const int channels[] = {8, 24, 64, 256, 264, 520};
  for (int round = 0; round < 12; ++round) {
    const int n = 1 + static_cast<int>(numbers.below(4)), c = channels[numbers.below(6)], places = 1 + static_cast<int>(numbers.below(round % 3 ? 70 : 3));
    const auto x = images(numbers, int64_t{n} * places * c);
    std::vector<float> y(static_cast<size_t>(n * c), kNone);
    const dev::Pool p = {x.data(), y.data(), places, c};
    emulated::launch({static_cast<unsigned>(n), static_cast<unsigned>(dev::ceil_div(c / dev::kVector, dev::kPooled)), 1}, [&] { dev::pool(p); });
    const auto dy = numbers.normals<float>(int64_t{n} * c);
    std::vector<dev::Bf16> dx(x.size(), 0x7fc0);
    const dev::PoolBackward back = {dy.data(), dx.data(), n, places, c};
    emulated::launch({dev::blocks_for(static_cast<int64_t>(dx.size()) / dev::kVector), 1, 1}, [&] { dev::pool_backward(back); });
    for (int i = 0; i < n; ++i) {
      for (int k = 0; k < c; ++k) {
        const auto at = [&](int place) { return static_cast<size_t>((i * places + place) * c + k); };
        double sum = 0;
        for (int place = 0; place < places; ++place) sum += number(x[at(place)]);
        CHECK_CLOSE(value_of(y[static_cast<size_t>(i * c + k)]), sum / places, 1e-5);
        const double d = value_of(dy[static_cast<size_t>(i * c + k)]) / places;
        for (int place = 0; place < places; ++place) CHECK_CLOSE(number(dx[at(place)]), d, 0.004 * std::fabs(d) + 1e-9);
      }
    }
  }
}

TEST("a small linear layer and its gradients") {
  Numbers numbers(11);
  for (int round = 0; round < 12; ++round) {
    const int n = 1 + static_cast<int>(numbers.below(140)), c = 1 + static_cast<int>(numbers.below(80)), k = 1 + static_cast<int>(numbers.below(12));
    const auto x = numbers.normals<float>(int64_t{n} * c), w = numbers.normals<float>(int64_t{k} * c), b = numbers.normals<float>(k);
    const auto dy = numbers.normals<float>(int64_t{n} * k);
    const bool bias = round % 3 != 0;
    std::vector<float> y(static_cast<size_t>(n * k), kNone), dw(w.size(), kNone), db(b.size(), kNone), dx(x.size(), kNone);
    const dev::Linear p = {x.data(), w.data(), bias ? b.data() : nullptr, y.data(), n, c, k};
    emulated::launch({static_cast<unsigned>(dev::ceil_div(n * k, dev::kThreads / 32)), 1, 1}, [&] { dev::linear(p); });
    const dev::LinearGradient of_weights = {x.data(), dy.data(), dw.data(), bias ? db.data() : nullptr, n, c, k};
    emulated::launch({static_cast<unsigned>(k), static_cast<unsigned>(dev::ceil_div(c, dev::kGradients)), 1},
                     [&] { dev::linear_gradient(of_weights); });
    const dev::LinearBackward of_x = {dy.data(), w.data(), dx.data(), n, c, k};
    emulated::launch({dev::blocks_for(int64_t{n} * c), 1, 1}, [&] { dev::linear_backward(of_x); });
    const auto product = [](const std::vector<float>& a, size_t at_a, size_t step_a, const std::vector<float>& of, size_t at, size_t step, int count) {
      double sum = 0;
      for (int i = 0; i < count; ++i) sum += value_of(a[at_a + i * step_a]) * value_of(of[at + i * step]);
      return sum;
    };
    const auto C = static_cast<size_t>(c), K = static_cast<size_t>(k);
    for (size_t i = 0; i < static_cast<size_t>(n); ++i) {
      for (size_t u = 0; u < K; ++u) {
        CHECK_CLOSE(value_of(y[i * K + u]), product(x, i * C, 1, w, u * C, 1, c) + (bias ? value_of(b[u]) : 0), 1e-4);
      }
      for (size_t j = 0; j < C; ++j) CHECK_CLOSE(value_of(dx[i * C + j]), product(dy, i * K, 1, w, j, C, k), 1e-4);
    }
    const std::vector<float> ones(static_cast<size_t>(n), 1);
    for (size_t u = 0; u < K; ++u) {
      for (size_t j = 0; j < C; ++j) CHECK_CLOSE(value_of(dw[u * C + j]), product(dy, u, K, x, j, C, n), 1e-4);
      if (bias) CHECK_CLOSE(value_of(db[u]), product(dy, u, K, ones, 0, 1, n), 1e-4);
    }
  }
}

TEST("loss, what is right, and the gradient of logits") {
  Numbers numbers(5);
  for (int round = 0; round < 12; ++round) {
    const int n = 1 + static_cast<int>(numbers.below(140)), classes = 2 + static_cast<int>(numbers.below(round % 3 ? 10 : 100));
    std::vector<float> logits = numbers.normals<float>(int64_t{n} * classes), d(logits.size(), kNone), loss_of(static_cast<size_t>(n));
    if (round % 4 == 0) {
      for (float& one : logits) one = std::round(one) + 200;  // ties, and what would overflow
    }
    std::vector<long long> labels(static_cast<size_t>(n));
    for (long long& label : labels) label = numbers.below(classes);
    std::vector<int> right(static_cast<size_t>(n));
    double measured[2];
    unsigned done = 0;
    const dev::Loss p = {logits.data(), labels.data(), d.data(), measured, loss_of.data(), right.data(), &done, n, classes};
    emulated::launch({static_cast<unsigned>(dev::ceil_div(n, dev::kThreads / 32)), 1, 1}, [&] { dev::loss(p); });
    double loss = 0, hits = 0;
    for (int i = 0; i < n; ++i) {
      const float* one = logits.data() + int64_t{i} * classes;
      int best = 0;
      double sum = 0;
      for (int c = 0; c < classes; ++c) {
        if (one[c] > one[best]) best = c;
        sum += std::exp(value_of(one[c]));
      }
      loss += std::log(sum) - value_of(one[labels[i]]);
      hits += best == labels[i];
      for (int c = 0; c < classes; ++c) {
        const double expected = (std::exp(value_of(one[c])) / sum - (c == labels[i])) / n;
        CHECK_CLOSE(value_of(d[static_cast<size_t>(i * classes + c)]), expected, 1e-5 / n);
      }
    }
    CHECK_CLOSE(measured[0], loss, 1e-5 * loss + 1e-4);
    CHECK_EQUAL(measured[1], hits);
    CHECK_EQUAL(done, 0u);
  }
}

TEST("examples are cropped, flipped and normalised; beyond the edge is black") {
  Numbers numbers(6);
  for (int round = 0; round < 12; ++round) {
    const int rows = 5, n = 1 + static_cast<int>(numbers.below(9)), channels = 1 + static_cast<int>(numbers.below(4));
    const int height = 3 + static_cast<int>(numbers.below(30)), width = 3 + static_cast<int>(numbers.below(30)), plane = height * width;
    std::vector<unsigned char> bytes(static_cast<size_t>(rows * channels * plane));
    for (unsigned char& byte : bytes) byte = static_cast<unsigned char>(numbers.below(256));
    std::vector<long long> labels = {4, 3, 2, 1, 0}, labels_out(static_cast<size_t>(n), -1);
    std::vector<int> where(static_cast<size_t>(4 * n));
    for (int i = 0; i < n; ++i) {
      where[i] = static_cast<int>(numbers.below(rows));
      where[n + i] = static_cast<int>(numbers.below(9)) - 4;
      where[2 * n + i] = static_cast<int>(numbers.below(9)) - 4;
      where[3 * n + i] = static_cast<int>(numbers.below(2));
    }
    const bool cropped = round % 3 != 0;
    const auto scale = numbers.normals<float>(channels), shift = numbers.normals<float>(channels);
    std::vector<dev::Bf16> x(static_cast<size_t>(n * channels * plane), 0x7fc0);
    const dev::Assemble p = {bytes.data(), labels.data(), where.data(), scale.data(), shift.data(), x.data(), labels_out.data(),
                             n, channels, height, width, cropped};
    emulated::launch({dev::blocks_for(int64_t{n} * plane), 1, 1}, [&] { dev::assemble(p); });
    for (int i = 0; i < n; ++i) {
      CHECK_EQUAL(labels_out[i], labels[where[i]]);
      for (int place = 0; place < plane; ++place) {
        int y = place / width, z = place % width;
        if (cropped) {
          z = (where[3 * n + i] ? width - 1 - z : z) + where[2 * n + i];
          y += where[n + i];
        }
        for (int c = 0; c < channels; ++c) {
          const bool inside = y >= 0 && y < height && z >= 0 && z < width;
          const double byte = inside ? bytes[static_cast<size_t>((where[i] * channels + c) * plane + y * width + z)] : 0;
          const double expected = byte * value_of(scale[c]) + value_of(shift[c]);
          CHECK_CLOSE(number(x[static_cast<size_t>((i * plane + place) * channels + c)]), expected, 0.005 * std::fabs(expected) + 1e-3);
        }
      }
    }
  }
}

TEST("weights are turned, several tensors in one launch") {
  Numbers numbers(7);
  const int shapes[][3] = {{16, 3, 9}, {64, 64, 9}, {5, 7, 1}, {32, 16, 25}};
  std::vector<std::vector<float>> from;
  std::vector<std::vector<dev::Bf16>> to, back;
  std::vector<dev::Weights> entries;
  int blocks = 0;
  for (const auto& [units, channels, taps] : shapes) {
    const int size = units * channels * taps;
    from.push_back(numbers.normals<float>(size));
    to.emplace_back(static_cast<size_t>(size), dev::Bf16{0x7fc0});
    back.push_back(to.back());
    entries.push_back({from.back().data(), to.back().data(), from.size() % 2 ? back.back().data() : nullptr, units, channels, taps,
                       blocks});
    blocks += static_cast<int>(dev::ceil_div(size, dev::kThreads * dev::kPerThread));
  }
  const dev::TurnWeights p = {entries.data(), static_cast<int>(entries.size())};
  emulated::launch({static_cast<unsigned>(blocks), 1, 1}, [&] { dev::turn_weights(p); });
  for (size_t i = 0; i < entries.size(); ++i) {
    const auto& [units, channels, taps] = shapes[i];
    for (int k = 0; k < units; ++k) {
      for (int c = 0; c < channels; ++c) {
        for (int tap = 0; tap < taps; ++tap) {
          CHECK_EQUAL(to[i][static_cast<size_t>((k * taps + tap) * channels + c)],
                      dev::rounded(from[i][static_cast<size_t>((k * channels + c) * taps + tap)]));
          if (!entries[i].back) continue;
          CHECK_EQUAL(back[i][static_cast<size_t>((c * taps + taps - 1 - tap) * units + k)],
                      to[i][static_cast<size_t>((k * taps + tap) * channels + c)]);
        }
      }
    }
  }
}

TEST("an update of SGD leaves pruned weights and their momentum alone, whatever their gradient is") {
  Numbers numbers(8);
  for (int round = 0; round < 4; ++round) {
    const int64_t size = 1 + numbers.below(1000);
    std::vector<float> w = numbers.normals<float>(size), g = numbers.normals<float>(size), m = numbers.normals<float>(size);
    std::vector<unsigned char> keep(static_cast<size_t>(size)), decayed(static_cast<size_t>(size));
    const bool all = round < 2;
    for (int64_t i = 0; i < size; ++i) {
      keep[i] = numbers.below(3) != 0;
      decayed[i] = all || numbers.below(2) != 0;
      if (!keep[i]) w[i] = m[i] = 0, g[i] = kNone;
    }
    const auto before = w, momentum = m;
    const bool has = round != 0, nesterov = round == 2;
    const dev::Sgd p = {w.data(), g.data(), has ? m.data() : nullptr, keep.data(), size, 0.1f, 0.9f, 1e-2f, nesterov,
                        all ? nullptr : decayed.data()};
    emulated::launch({dev::blocks_for(size), 1, 1}, [&] { dev::sgd(p); });
    for (int64_t i = 0; i < size; ++i) {
      if (!keep[i]) {
        CHECK_EQUAL(std::bit_cast<uint32_t>(w[i]), 0u);
        CHECK_EQUAL(std::bit_cast<uint32_t>(m[i]), 0u);
        continue;
      }
      const double d = value_of(g[i]) + (decayed[i] ? 1e-2 : 0) * value_of(before[i]);
      const double moved = has ? 0.9 * value_of(momentum[i]) + d : d;
      CHECK_CLOSE(value_of(w[i]), value_of(before[i]) - 0.1 * (nesterov ? d + 0.9 * moved : moved), 1e-6);
      if (has) CHECK_CLOSE(value_of(m[i]), moved, 1e-6);
    }
  }
}
