// Counter-based random numbers: published vectors, and frozen ones of our own. A change here changes every
// run.
#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "check.h"
#include "core/random.h"

using namespace lth;
using Words = std::array<uint32_t, 4>;

namespace {

// FNV-1a over the little-endian bytes.
uint64_t hash_of(const std::vector<int32_t>& values) {
  uint64_t h = 0xcbf29ce484222325u;
  for (const int32_t value : values) {
    for (int i = 0; i < 4; ++i) h = (h ^ (static_cast<uint32_t>(value) >> (8 * i) & 255)) * 0x100000001b3u;
  }
  return h;
}

uint64_t bits_of(double x) { return std::bit_cast<uint64_t>(x); }

}  // namespace

TEST("Philox4x32-10 gives Random123's known answers") {
  CHECK(philox4x32({0, 0, 0, 0}, {0, 0}) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}) ==
        Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST("streams and their words are frozen (an independent implementation gave the vectors)") {
  const Stream s = stream(1, 2, Purpose::kOrder, 4);
  CHECK(s.key == std::array<uint32_t, 2>{0xe941da94, 0xefd1c11d});
  const Stream far = stream(0x123456789abcdef0, 7, Purpose::kInitialisation, 0xfedcba9876543210);
  CHECK(far.key == std::array<uint32_t, 2>{0x04899e5c, 0xfeca48e0});
  CHECK(s.words(1ull << 32 | 5, 6, 7) == Words{0xc728efc8, 0x91a5f03b, 0xa0d43cda, 0x5e845e6f});
  CHECK_EQUAL(s.bits64(1ull << 32 | 5, 6, 7), 0x91a5f03bc728efc8u);
}

TEST("every part of the key and the counter matters") {
  const Stream base = stream(1, 2, Purpose::kOrder, 4);
  for (const Stream& other :
       {stream(2, 2, Purpose::kOrder, 4), stream(1ull << 32 | 1, 2, Purpose::kOrder, 4),
        stream(1, 3, Purpose::kOrder, 4), stream(1, 2, Purpose::kMask, 4), stream(1, 2, Purpose::kOrder, 5),
        stream(1, 2, Purpose::kOrder, 1ull << 32 | 4)}) {
    CHECK(base.key != other.key);
  }
  const uint64_t n = base.bits64(5, 6, 7);
  for (const uint64_t other : {base.bits64(6, 6, 7), base.bits64(1ull << 32 | 5, 6, 7), base.bits64(5, 7, 7),
                               base.bits64(5, 6, 8)}) {
    CHECK(n != other);
  }
}

TEST("permutations are frozen") {
  const Stream s = stream(1, 2, Purpose::kOrder, 4);
  CHECK_EQUAL(permutation(s, 10, 0, 0), std::vector<int32_t>{9, 7, 6, 0, 3, 8, 1, 2, 5, 4});
  CHECK_EQUAL(permutation(s, 10, 1, 0), std::vector<int32_t>{3, 9, 0, 5, 4, 1, 7, 6, 2, 8});
  CHECK_EQUAL(permutation(s, 10, 0, 1), std::vector<int32_t>{0, 5, 9, 1, 8, 3, 4, 2, 7, 6});
  CHECK_EQUAL(hash_of(permutation(stream(1, 0, Purpose::kOrder, 0), 60000, 0, 0)), 0x17019c0e23b47f85u);
  CHECK_EQUAL(hash_of(permutation(stream(1, 0, Purpose::kOrder, 0), 60000, 3, 0)), 0xa03e1cd5d1d8b639u);
}

TEST("a permutation holds everything once; of nothing it is empty; of too much it is an error") {
  std::vector<int32_t> order = permutation(stream(3, 0, Purpose::kOrder, 0), 1001, 2, 0), all(1001);
  std::iota(all.begin(), all.end(), 0);
  std::sort(order.begin(), order.end());
  CHECK(order == all);
  CHECK(permutation(stream(3, 0, Purpose::kOrder, 0), 0, 0, 0).empty());
  CHECK_THROWS({ permutation(stream(3, 0, Purpose::kOrder, 0), int64_t{1} << 31, 0, 0); }, "unsupported",
               {"2147483648"});
}

TEST("each place of a permutation is equally likely") {
  // 24 orders of 4 things, 24,000 draws: chi-squared with 23 degrees of freedom stays below its 1e-4
  // quantile.
  std::array<int, 256> counts{};
  for (uint32_t epoch = 0; epoch < 24000; ++epoch) {
    const auto p = permutation(stream(11, 0, Purpose::kOrder, 0), 4, epoch, 0);
    ++counts[p[0] | p[1] << 2 | p[2] << 4 | p[3] << 6];
  }
  double chi = 0;
  int orders = 0;
  for (const int count : counts) {
    if (count == 0) continue;
    ++orders;
    chi += (count - 1000.0) * (count - 1000.0) / 1000.0;
  }
  CHECK_EQUAL(orders, 24);
  CHECK(chi < 56.0);
}

TEST("normal deviates are frozen to the last bit") {
  const Stream s = stream(1, 0, Purpose::kInitialisation, 0);
  // By another implementation of AS241, with the C library's logarithm.
  const double expected[] = {-1.1328791499536566, 1.5183839958887475, 0.7138744934328528,
                             -1.0626537318268854, 0.7851055542593907, 0.5642246734804351};
  for (uint64_t i = 0; i < 6; ++i) CHECK(std::fabs(normal(s, i, 0, 0) - expected[i]) < 2e-15);
  // The same 200,000 bit patterns came from an independent implementation in Python.
  uint64_t h = 0xcbf29ce484222325u;
  for (uint64_t i = 0; i < 200000; ++i) h = (h ^ bits_of(normal(s, i, 1, 2))) * 0x100000001b3u;
  CHECK_EQUAL(h, 0x4767799dc22968cdu);
}

TEST("normal deviates have the moments and tails of a standard normal") {
  const Stream s = stream(5, 0, Purpose::kInitialisation, 0);
  constexpr int kDraws = 1000000;
  double sum = 0, squares = 0, cubes = 0, fourths = 0;
  int beyond2 = 0, beyond4 = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double x = normal(s, i, 0, 0);
    CHECK(std::isfinite(x));
    sum += x;
    squares += x * x;
    cubes += x * x * x;
    fourths += x * x * x * x;
    beyond2 += std::fabs(x) > 2;
    beyond4 += std::fabs(x) > 4;
  }
  CHECK(std::fabs(sum / kDraws) < 4e-3);  // four standard errors each
  CHECK(std::fabs(squares / kDraws - 1) < 5.7e-3);
  CHECK(std::fabs(cubes / kDraws) < 1.6e-2);
  CHECK(std::fabs(fourths / kDraws - 3) < 4e-2);
  CHECK(std::fabs(beyond2 - 45500.26) < 4 * 209);
  CHECK(beyond4 > 30 && beyond4 < 100);  // expected 63.3
}

TEST("truncated and uniform deviates are frozen, and have the moments of their distributions and no value outside") {
  const Stream s = stream(1, 0, Purpose::kInitialisation, 0);
  // By the inverse of another implementation, in Python.
  const double truncated[] = {-1.055799897389131, 1.3768711061329966, 0.6757827926676058,
                              -0.9937635955658863, 0.7417843374622202, 0.5358705857973387};
  const double flat[] = {-0.7427349930583976, 0.8710823761737818, 0.5246952092065209,
                         -0.712060989633622, 0.567608316529824, 0.4273987619434454};
  for (uint64_t i = 0; i < 6; ++i) {
    CHECK(std::fabs(truncated_normal(s, i, 0, 0) - truncated[i]) < 1e-14);
    CHECK(std::fabs(uniform(s, i, 0, 0) - flat[i]) < 1e-15);
  }
  constexpr int kDraws = 1000000;
  struct Moments {
    double first = 0, second = 0, fourth = 0, largest = 0;
    void add(double x) {
      first += x / kDraws;
      second += x * x / kDraws;
      fourth += x * x * x * x / kDraws;
      largest = std::max(largest, std::fabs(x));
    }
  } of_truncated, of_uniform;
  for (uint64_t i = 0; i < kDraws; ++i) {
    of_truncated.add(truncated_normal(s, i, 3, 1));
    of_uniform.add(uniform(s, i, 3, 1));
  }
  // Four standard errors each.
  const double variance = kTruncatedDeviation * kTruncatedDeviation;
  CHECK(std::fabs(of_truncated.first) < 4 * kTruncatedDeviation / 1000);
  CHECK(std::fabs(of_truncated.second - variance) < 4 * 0.905 / 1000);
  CHECK(std::fabs(of_truncated.fourth - 1.416194) < 4 * 2.4 / 1000);
  CHECK(of_truncated.largest < 2 && of_truncated.largest > 1.999);
  CHECK(std::fabs(of_uniform.first) < 4 * 0.578 / 1000);
  CHECK(std::fabs(of_uniform.second - 1.0 / 3) < 4 * 0.299 / 1000);
  CHECK(std::fabs(of_uniform.fourth - 0.2) < 4 * 0.267 / 1000);
  CHECK(of_uniform.largest < 1 && of_uniform.largest > 0.9999);
}
