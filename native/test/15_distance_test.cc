// Distance and angle between two copies, against their definitions written plainly.
#include <cmath>
#include <cstring>

#include "analyse/distance.h"
#include "analyse/prune.h"
#include "check.h"
#include "core/bitmask.h"
#include "networks.h"

using namespace lth;
using test::drawn;
using test::lenet;
using test::medium;
using test::values;

namespace {

std::shared_ptr<const Masks> pruned(const Snapshot& weights, double fraction) {
  PruneOptions o;
  o.fraction = fraction;
  return prune(all_ones(weights.layout), weights, o);
}

template <typename T>
Snapshot scaled(const Snapshot& s, T factor) {
  Snapshot out;
  out.layout = s.layout;
  out.dtype = s.dtype;
  out.parameters = Arena(s.parameters.size());
  for (int64_t i = 0; i < s.layout->arena; ++i) values<T>(out.parameters)[i] = factor * values<T>(s.parameters)[i];
  return out;
}

struct Plain {
  long double aa = 0, bb = 0, ab = 0, dd = 0;
  double distance() const { return static_cast<double>(std::sqrt(dd)); }
  double angle() const { return static_cast<double>(std::acos(ab / std::sqrt(aa * bb)) * 180 / std::acos(-1.0L)); }
};

template <typename T>
Plain plainly(const Snapshot& a, const Snapshot& b, const Masks& m, const ParameterSpec& p, Plain sum = {}) {
  for (int64_t i = p.offset; i < p.offset + p.size; ++i) {
    if (!bit_at(m.words, i)) continue;
    const long double x = values<T>(a.parameters)[i], y = values<T>(b.parameters)[i];
    sum.aa += x * x;
    sum.bb += y * y;
    sum.ab += x * y;
    sum.dd += (x - y) * (x - y);
  }
  return sum;
}

bool near(double found, double expected) { return std::fabs(found - expected) <= 1e-11 * std::fabs(expected); }

template <typename T>
void compare(Scope scope) {
  const auto layout = medium();
  const Snapshot a = drawn<T>(layout, 1), b = drawn<T>(layout, 2);
  const auto masks = pruned(a, 0.8);
  const Distances found = distance(a, b, *masks, scope);
  Plain all;
  size_t layer = 0;
  for (const ParameterSpec& p : layout->parameters) {
    if (scope == Scope::kMasked && !p.prunable) continue;
    const Plain one = plainly<T>(a, b, *masks, p);
    all = plainly<T>(a, b, *masks, p, all);
    const Distance& d = found.layers.at(layer++);
    CHECK_EQUAL(d.name, p.name);
    CHECK(near(d.distance, one.distance()));
    CHECK(near(d.angle, one.angle()));
  }
  CHECK_EQUAL(layer, found.layers.size());
  CHECK(near(found.total.distance, all.distance()));
  CHECK(near(found.total.angle, all.angle()));
}

bool same_bits(double a, double b) { return std::memcmp(&a, &b, sizeof a) == 0; }

}  // namespace

TEST("distances and angles are those of the definition, for each tensor and all together") {
  compare<float>(Scope::kMasked);
  compare<float>(Scope::kAll);
  compare<double>(Scope::kMasked);
  compare<double>(Scope::kAll);
}

TEST("identical weights have distance 0 and angle 0, exactly") {
  const auto layout = medium();
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const Snapshot a = drawn<float>(layout, seed), b = drawn<float>(layout, seed);
    const Distances d = distance(a, b, *pruned(a, 0.7), Scope::kMasked);
    CHECK(same_bits(d.total.distance, 0.0));
    CHECK(same_bits(d.total.angle, 0.0));
    for (const Distance& one : d.layers) CHECK(same_bits(one.distance, 0.0) && same_bits(one.angle, 0.0));
  }
}

TEST("the two arguments may change places: the same bits") {
  const auto layout = medium();
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const Snapshot a = drawn<float>(layout, seed), b = drawn<float>(layout, seed + 100);
    const auto masks = pruned(a, 0.5);
    const Distances there = distance(a, b, *masks, Scope::kAll), back = distance(b, a, *masks, Scope::kAll);
    CHECK(same_bits(there.total.distance, back.total.distance) && same_bits(there.total.angle, back.total.angle));
  }
}

TEST("angles are within 0 and 180 degrees: opposite weights have 180, scaled ones next to none") {
  const auto layout = medium();
  const Masks masks = all_ones(layout);
  const Snapshot a = drawn<float>(layout, 3);
  CHECK_EQUAL(distance(a, scaled<float>(a, -1), masks, Scope::kAll).total.angle, 180.0);
  const double angle = distance(a, scaled<float>(a, 3), masks, Scope::kAll).total.angle;
  CHECK(angle >= 0 && angle < 1e-5);  // 3 * w is rounded to fp32
  // Where arccos of the rounded cosine would see nothing: b turned by 1e-9 of a radian.
  const auto one = compile(lenet({}, {2}, 1))->layout;
  Snapshot x = drawn<double>(one, 1), y = drawn<double>(one, 1);
  values<double>(x.parameters)[0] = 1, values<double>(x.parameters)[1] = 0;
  values<double>(y.parameters)[0] = 1, values<double>(y.parameters)[1] = 1e-9;
  CHECK(near(distance(x, y, all_ones(one), Scope::kMasked).total.angle, 1e-9 * 180 / std::acos(-1.0)));
}

TEST("a zero vector has no angle, but a distance") {
  const auto layout = medium();
  const Snapshot a = drawn<float>(layout, 3), zero = scaled<float>(a, 0);
  const Distances d = distance(a, zero, all_ones(layout), Scope::kAll);
  CHECK(std::isnan(d.total.angle));
  CHECK(d.total.distance > 0);
}

TEST("what is pruned does not count, whatever it holds; what remains must be finite") {
  const auto layout = medium();
  const Snapshot a = drawn<float>(layout, 3), b = drawn<float>(layout, 4);
  const auto masks = pruned(a, 0.5);
  const double before = distance(a, b, *masks, Scope::kMasked).total.distance;
  int64_t gone = 0, kept = 0;
  while (bit_at(masks->words, gone)) ++gone;
  while (!bit_at(masks->words, kept)) ++kept;
  values<float>(a.parameters)[gone] = INFINITY;
  CHECK_EQUAL(distance(a, b, *masks, Scope::kMasked).total.distance, before);
  values<float>(a.parameters)[kept] = INFINITY;
  CHECK_THROWS({ distance(a, b, *masks, Scope::kMasked); }, "diverged", {"[distance]", "fc1.weight"});
}

TEST("other networks and precisions are refused") {
  const auto layout = medium(), other = compile(lenet({4}, {2}, 2))->layout;
  const Snapshot a = drawn<float>(layout, 3);
  CHECK_THROWS({ distance(a, drawn<float>(other, 1), all_ones(layout), Scope::kAll); }, "wrong-shape", {"[distance]"});
  CHECK_THROWS({ distance(a, a, all_ones(other), Scope::kAll); }, "wrong-shape", {"[distance]"});
  CHECK_THROWS({ distance(a, drawn<double>(layout, 3), all_ones(layout), Scope::kAll); }, "wrong-shape", {"fp64"});
}

TEST("running statistics are in no distance") {
  const auto layout = compile(test::normalised())->layout;
  const Snapshot a = drawn<float>(layout, 3), b = drawn<float>(layout, 4);
  const Masks masks = all_ones(layout);
  const Distances before = distance(a, b, masks, Scope::kAll);
  int buffers = 0;
  for (const ParameterSpec& p : layout->parameters) {
    if (p.trainable) continue;
    ++buffers;
    values<float>(a.parameters)[p.offset] = INFINITY;
  }
  CHECK_EQUAL(buffers, 2);
  CHECK_EQUAL(before.layers.size(), layout->parameters.size() - 2);
  CHECK_EQUAL(distance(a, b, masks, Scope::kAll).total.distance, before.total.distance);
}
