// Points between two snapshots.
#include <cmath>
#include <cstring>

#include "analyse/interpolate.h"
#include "check.h"
#include "networks.h"

using namespace lth;
using test::drawn;
using test::lenet;
using test::small;
using test::values;

namespace {

bool same_bits(const Snapshot& a, const Snapshot& b) {
  return a.parameters.size() == b.parameters.size() &&
         std::memcmp(a.parameters.data(), b.parameters.data(), a.parameters.size()) == 0;
}

template <typename T>
void compare() {
  const auto layout = small();
  const Snapshot a = drawn<T>(layout, 1), b = drawn<T>(layout, 2);
  for (const double alpha : {0.1, 0.25, 0.5, 28.0 / 29}) {
    const auto between = interpolate(a, b, alpha);
    for (int64_t i = 0; i < layout->arena; ++i) {
      const long double x = values<T>(a.parameters)[i], y = values<T>(b.parameters)[i];
      const long double expected = (1 - static_cast<long double>(alpha)) * x + alpha * y;
      const long double unit = std::numeric_limits<T>::epsilon() * (std::fabs(x) + std::fabs(y));
      CHECK(std::fabs(values<T>(between->parameters)[i] - expected) <= unit);
    }
  }
}

}  // namespace

TEST("every parameter is (1 - alpha) a + alpha b, rounded") {
  compare<float>();
  compare<double>();
}

TEST("alpha 0 and 1 give the two ends in every bit, the sign of zeros too") {
  const auto layout = small();
  const Snapshot a = drawn<float>(layout, 1);
  Snapshot b = drawn<float>(layout, 2);
  values<float>(a.parameters)[0] = -0.0f;
  values<float>(b.parameters)[1] = -0.0f;
  b.step = 7;
  CHECK(same_bits(*interpolate(a, b, 0), a));
  CHECK(same_bits(*interpolate(a, b, 1), b));
  CHECK_EQUAL(interpolate(a, b, 0.5)->step, 0);
  CHECK_EQUAL(interpolate(a, b, 1)->step, 7);
}

TEST("between identical snapshots the line stays where it is: pruned weights are +0 all along") {
  const auto layout = small();
  const Snapshot a = drawn<double>(layout, 1), b = drawn<double>(layout, 1);
  values<double>(a.parameters)[3] = 0, values<double>(b.parameters)[3] = 0;
  for (int i = 0; i < 30; ++i) CHECK(same_bits(*interpolate(a, b, i / 29.0), a));
}

TEST("where both ends have moving averages the point has one between theirs, else none") {
  const auto layout = small();
  Snapshot a = drawn<double>(layout, 1), b = drawn<double>(layout, 2);
  a.average = drawn<double>(layout, 3).parameters;
  CHECK_EQUAL(interpolate(a, b, 0.5)->average.size(), size_t{0});
  b.average = drawn<double>(layout, 4).parameters;
  const Snapshot x = drawn<double>(layout, 3), y = drawn<double>(layout, 4);
  const auto point = interpolate(a, b, 0.25), between = interpolate(x, y, 0.25);
  CHECK(std::memcmp(point->average.data(), between->parameters.data(), between->parameters.size()) == 0);
  CHECK(std::memcmp(interpolate(a, b, 1)->average.data(), b.average.data(), b.average.size()) == 0);
}

TEST("there is no optimiser state between two snapshots") {
  const auto layout = small();
  Snapshot a = drawn<float>(layout, 1);
  a.optimiser.push_back({"momentum", Arena(a.parameters.size())});
  CHECK(interpolate(a, a, 0)->optimiser.empty());
}

TEST("alphas outside the line, other networks and precisions are refused") {
  const auto layout = small(), other = compile(lenet({4}, {2}, 2))->layout;
  const Snapshot a = drawn<float>(layout, 1);
  CHECK_THROWS({ interpolate(a, a, -0.1); }, "invalid-argument", {"[interpolate]", "-0.1"});
  CHECK_THROWS({ interpolate(a, a, NAN); }, "invalid-argument", {"[interpolate]"});
  CHECK_THROWS({ interpolate(a, drawn<float>(other, 1), 0.5); }, "wrong-shape", {"[interpolate]"});
  CHECK_THROWS({ interpolate(a, drawn<double>(layout, 1), 0.5); }, "wrong-shape", {"fp64"});
}

TEST("running statistics are interpolated with the weights") {
  const auto layout = compile(test::normalised())->layout;
  const Snapshot a = drawn<double>(layout, 1), b = drawn<double>(layout, 2);
  const auto half = interpolate(a, b, 0.5);
  int buffers = 0;
  for (const ParameterSpec& p : layout->parameters) {
    if (p.trainable) continue;
    ++buffers;
    const double x = values<double>(a.parameters)[p.offset], y = values<double>(b.parameters)[p.offset];
    CHECK(std::fabs(values<double>(half->parameters)[p.offset] - (x + y) / 2) < 1e-15);
  }
  CHECK_EQUAL(buffers, 2);
}
