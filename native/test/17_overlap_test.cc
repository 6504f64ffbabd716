// What two masks share, and what random ones would.
#include <cmath>

#include "analyse/overlap.h"
#include "analyse/prune.h"
#include "analyse/random_mask.h"
#include "check.h"
#include "core/bitmask.h"
#include "networks.h"

using namespace lth;
using test::drawn;
using test::lenet;
using test::medium;

namespace {

std::shared_ptr<const Masks> pruned(std::shared_ptr<const ParameterLayout> layout, uint64_t seed, double fraction) {
  PruneOptions o;
  o.fraction = fraction;
  return prune(all_ones(layout), drawn<float>(layout, seed), o);
}

}  // namespace

TEST("intersection and union are counted for each prunable tensor and all together") {
  const auto layout = medium();
  const auto a = pruned(layout, 1, 0.7), b = pruned(layout, 2, 0.6);
  const Overlaps found = overlap(*a, *b);
  Overlap all;
  size_t layer = 0;
  for (const ParameterSpec& p : layout->parameters) {
    if (!p.prunable) continue;
    Overlap one{p.name, p.size};
    for (int64_t i = p.offset; i < p.offset + p.size; ++i) {
      const bool x = bit_at(a->words, i), y = bit_at(b->words, i);
      one.a += x, one.b += y, one.intersection += x && y, one.union_ += x || y;
    }
    const Overlap& there = found.layers.at(layer++);
    CHECK_EQUAL(there.name, p.name);
    CHECK_EQUAL(there.size, one.size);
    CHECK_EQUAL(there.a, one.a);
    CHECK_EQUAL(there.b, one.b);
    CHECK_EQUAL(there.intersection, one.intersection);
    CHECK_EQUAL(there.union_, one.union_);
    CHECK_EQUAL(there.chance, static_cast<double>(one.a) * static_cast<double>(one.b) / static_cast<double>(p.size));
    all.size += one.size, all.a += one.a, all.b += one.b;
    all.intersection += one.intersection, all.union_ += one.union_, all.chance += there.chance;
  }
  CHECK_EQUAL(layer, found.layers.size());
  CHECK_EQUAL(found.total.size, all.size);
  CHECK_EQUAL(found.total.a, all.a);
  CHECK_EQUAL(found.total.b, all.b);
  CHECK_EQUAL(found.total.intersection, all.intersection);
  CHECK_EQUAL(found.total.union_, all.union_);
  CHECK_EQUAL(found.total.chance, all.chance);
}

TEST("a mask shares all of itself with itself, and all of an inner one with an outer one") {
  const auto layout = medium();
  const auto outer = pruned(layout, 1, 0.5);
  const auto inner = prune(*outer, drawn<float>(layout, 1), {});
  const Overlaps itself = overlap(*outer, *outer), nested = overlap(*inner, *outer);
  CHECK_EQUAL(itself.total.intersection, itself.total.union_);
  CHECK_EQUAL(nested.total.intersection, nested.total.a);
  CHECK_EQUAL(nested.total.union_, nested.total.b);
}

TEST("random masks share as much as chance says, within five standard deviations") {
  const auto layout = medium();
  const auto counts = pruned(layout, 1, 0.7);
  const Overlaps found = overlap(*random_masks(*counts, 1, 0), *random_masks(*counts, 2, 0));
  double variance = 0;  // hypergeometric
  for (const Overlap& o : found.layers) {
    const auto n = static_cast<double>(o.size), a = static_cast<double>(o.a), b = static_cast<double>(o.b);
    variance += a * b / n * (1 - b / n) * (n - a) / (n - 1);
  }
  CHECK(std::fabs(static_cast<double>(found.total.intersection) - found.total.chance) < 5 * std::sqrt(variance));
}

TEST("masks of different networks are refused") {
  CHECK_THROWS({ overlap(all_ones(medium()), all_ones(compile(lenet({4}, {2}, 2))->layout)); }, "wrong-shape",
               {"[overlap]"});
}
