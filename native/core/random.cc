#include "core/random.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "core/error.h"

namespace lth {
namespace {

struct Product32 {
  uint32_t high, low;
};
Product32 multiply(uint32_t a, uint32_t b) {
  const uint64_t p = static_cast<uint64_t>(a) * b;
  return {static_cast<uint32_t>(p >> 32), static_cast<uint32_t>(p)};
}

double polynomial(const double (&c)[8], double r) {
  double p = c[7];
  for (int i = 6; i >= 0; --i) p = p * r + c[i];
  return p;
}

// Wichura 1988, Algorithm AS 241, PPND16: the normal deviate of a lower tail area p in (0, 1), to about 1e-16.
double inverse_normal(double p) {
  static constexpr double a[8] = {3.3871328727963666080e0,  1.3314166789178437745e+2, 1.9715909503065514427e+3,
                                  1.3731693765509461125e+4, 4.5921953931549871457e+4, 6.7265770927008700853e+4,
                                  3.3430575583588128105e+4, 2.5090809287301226727e+3};
  static constexpr double b[8] = {1.0,                      4.2313330701600911252e+1, 6.8718700749205790830e+2,
                                  5.3941960214247511077e+3, 2.1213794301586595867e+4, 3.9307895800092710610e+4,
                                  2.8729085735721942674e+4, 5.2264952788528545610e+3};
  static constexpr double c[8] = {1.42343711074968357734e0,  4.63033784615654529590e0,  5.76949722146069140550e0,
                                  3.64784832476320460504e0,  1.27045825245236838258e0,  2.41780725177450611770e-1,
                                  2.27238449892691845833e-2, 7.74545014278341407640e-4};
  static constexpr double d[8] = {1.0,                       2.05319162663775882187e0,  1.67638483018380384940e0,
                                  6.89767334985100004550e-1, 1.48103976427480074590e-1, 1.51986665636164571966e-2,
                                  5.47593808499534494600e-4, 1.05075007164441684324e-9};
  static constexpr double e[8] = {6.65790464350110377720e0,  5.46378491116411436990e0,  1.78482653991729133580e0,
                                  2.96560571828504891230e-1, 2.65321895265761230930e-2, 1.24266094738807843860e-3,
                                  2.71155556874348757815e-5, 2.01033439929228813265e-7};
  static constexpr double f[8] = {1.0,                       5.99832206555887937690e-1, 1.36929880922735805310e-1,
                                  1.48753612908506148525e-2, 7.86869131145613259100e-4, 1.84631831751005468180e-5,
                                  1.42151175831644588870e-7, 2.04426310338993978564e-15};
  const double q = p - 0.5;
  if (std::fabs(q) <= 0.425) {
    const double r = 0.180625 - q * q;
    return q * polynomial(a, r) / polynomial(b, r);
  }
  const double tail = q < 0 ? p : 1 - p;
  double r = std::sqrt(-logarithm(tail));
  double x;
  if (r <= 5) {
    r -= 1.6;
    x = polynomial(c, r) / polynomial(d, r);
  } else {
    r -= 5;
    x = polynomial(e, r) / polynomial(f, r);
  }
  return q < 0 ? -x : x;
}

// The middle of one of 2^53 equal intervals of (0, 1). A double holds it exactly only below 1/2 (above, adding the half
// rounds, and the last interval would become 1), so the upper half is drawn as the mirror image of the lower.
struct Uniform {
  double lower;  // in (0, 1/2)
  bool mirrored;
};
Uniform middle_of_interval(const Stream& s, uint64_t index, uint32_t epoch, uint32_t layer) {
  constexpr uint64_t kHalf = uint64_t{1} << 52;
  const uint64_t k = s.bits64(index, epoch, layer) >> 11;
  const bool upper = k >= kHalf;
  return {(static_cast<double>(upper ? 2 * kHalf - 1 - k : k) + 0.5) * 0x1p-53, upper};
}

}  // namespace

// x = m 2^e with m in [sqrt(1/2), sqrt(2)), ln m = 2 atanh((m - 1) / (m + 1)) by its series, below 1e-15 relative.
double logarithm(double x) {
  uint64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  int exponent = static_cast<int>(bits >> 52) - 1023;
  bits = (bits & 0x000fffffffffffffull) | 0x3ff0000000000000ull;
  double m;
  std::memcpy(&m, &bits, sizeof m);
  if (m > 1.4142135623730951) {
    m *= 0.5;
    ++exponent;
  }
  const double s = (m - 1) / (m + 1), z = s * s;
  double series = 0;
  for (int k = 25; k >= 1; k -= 2) series = series * z + 1.0 / k;
  return exponent * 0.69314718055994530942 + 2 * s * series;
}

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> c, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const Product32 x = multiply(0xD2511F53u, c[0]), y = multiply(0xCD9E8D57u, c[2]);
    c = {y.high ^ c[1] ^ key[0], y.low, x.high ^ c[3] ^ key[1], x.low};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return c;
}

std::array<uint32_t, 4> Stream::words(uint64_t index, uint32_t epoch, uint32_t layer) const {
  return philox4x32({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), epoch, layer}, key);
}

uint64_t Stream::bits64(uint64_t index, uint32_t epoch, uint32_t layer) const {
  const auto w = words(index, epoch, layer);
  return static_cast<uint64_t>(w[1]) << 32 | w[0];
}

Stream stream(uint64_t seed, uint32_t replicate, Purpose purpose, uint64_t noise) {
  const auto w = philox4x32({replicate, static_cast<uint32_t>(purpose), static_cast<uint32_t>(noise),
                             static_cast<uint32_t>(noise >> 32)},
                            {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  return {{w[0], w[1]}};
}

double normal(const Stream& s, uint64_t index, uint32_t epoch, uint32_t layer) {
  const Uniform u = middle_of_interval(s, index, epoch, layer);
  const double deviate = inverse_normal(u.lower);
  return u.mirrored ? -deviate : deviate;
}

double truncated_normal(const Stream& s, uint64_t index, uint32_t epoch, uint32_t layer) {
  constexpr double kBelow = 0.022750131948179207;  // of a standard normal's mass, below -2
  const Uniform u = middle_of_interval(s, index, epoch, layer);
  const double deviate = inverse_normal(kBelow + u.lower * (1 - 2 * kBelow));
  return u.mirrored ? -deviate : deviate;
}

double uniform(const Stream& s, uint64_t index, uint32_t epoch, uint32_t layer) {
  const Uniform u = middle_of_interval(s, index, epoch, layer);
  const double below = 2 * u.lower - 1;
  return u.mirrored ? -below : below;
}

std::vector<int32_t> permutation(const Stream& s, int64_t n, uint32_t epoch, uint32_t layer) {
  if (n < 0 || n > std::numeric_limits<int32_t>::max()) {
    throw Error("unsupported", "[permutation] of " + std::to_string(n) + " things: expected at most 2^31 - 1");
  }
  std::vector<int32_t> order(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) order[i] = static_cast<int32_t>(i);
  for (int64_t i = n - 1; i >= 1; --i) {
    const auto j = static_cast<int64_t>(
        (static_cast<unsigned __int128>(s.bits64(static_cast<uint64_t>(i), epoch, layer)) * static_cast<uint64_t>(i + 1)) >> 64);
    std::swap(order[i], order[j]);
  }
  return order;
}

}  // namespace lth
