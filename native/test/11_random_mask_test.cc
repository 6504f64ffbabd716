// Random subnetworks: IMP's counts at random places.
#include <cmath>

#include "analyse/prune.h"
#include "analyse/random_mask.h"
#include "check.h"
#include "core/bitmask.h"
#include "networks.h"

using namespace lth;
using test::drawn;
using test::lenet;

namespace {

// Level after level from the same weights.
std::vector<std::shared_ptr<const Masks>> levels(std::shared_ptr<const ParameterLayout> layout, int n) {
  std::vector<std::shared_ptr<const Masks>> all = {std::make_shared<const Masks>(all_ones(layout))};
  PruneOptions o;
  for (int i = 0; i < n; ++i) all.push_back(prune(*all.back(), drawn<float>(layout, 1), o));
  return all;
}

}  // namespace

TEST("random masks keep the count of each tensor and are nested over levels") {
  const auto layout = compile(lenet({40, 30}, {1, 9, 9}, 5))->layout;
  std::shared_ptr<const Masks> before;
  for (const auto& imp : levels(layout, 10)) {
    const auto random = random_masks(*imp, 5, 1);
    CHECK_EQUAL(random->remaining, imp->remaining);
    for (size_t i = 0; i < layout->parameters.size(); ++i) {
      const ParameterSpec& p = layout->parameters[i];
      CHECK_EQUAL(count_bits(random->words, p.offset, (p.size + 63) / 64 * 64), imp->remaining[i]);
    }
    if (before) CHECK(is_nested(*random, *before));
    before = random;
  }
}

TEST("places are frozen: one permutation per tensor, the first `remaining` stay") {
  // fc1.weight (4,2) is parameter 0: permutation 0 6 7 4 3 2 1 5; fc2.weight (2,4) is parameter 2: 3 7 0 2 4
  // 5 6 1.
  const auto layout = compile(lenet({4}, {2}, 2))->layout;
  const uint8_t five = 0b11111, three = 0b111;
  const auto counts = masks_from_bits(layout, {{"fc1.weight", {&five, 1}}, {"fc2.weight", {&three, 1}}});
  const auto random = random_masks(*counts, 5, 1);
  CHECK_EQUAL(random->words[0], 1u << 0 | 1u << 6 | 1u << 7 | 1u << 4 | 1u << 3);
  CHECK_EQUAL(random->words[static_cast<size_t>(layout->parameters[2].offset / 64)],
              1u << 3 | 1u << 7 | 1u << 0);
}

TEST("seed and replicate change the places; which weights IMP kept does not") {
  const auto layout = compile(lenet({40, 30}, {1, 9, 9}, 5))->layout;
  PruneOptions o;
  o.fraction = 0.5;
  o.layerwise = true;
  const auto a = prune(all_ones(layout), drawn<float>(layout, 1), o),
             b = prune(all_ones(layout), drawn<float>(layout, 2), o);
  CHECK(a->words != b->words);
  const auto random = random_masks(*a, 5, 1);
  CHECK(random_masks(*b, 5, 1)->words == random->words);
  CHECK(random_masks(*a, 6, 1)->words != random->words);
  CHECK(random_masks(*a, 5, 2)->words != random->words);
}

TEST("random scores are uniform in [0, 1), of the seed and the replicate, for prunable weights alone") {
  const auto layout = compile(lenet({40, 30}, {1, 9, 9}, 5))->layout;
  const auto scores = random_scores(layout, 5, 1);
  const auto* x = test::values<double>(scores->parameters);
  double sum = 0;
  int64_t n = 0;
  for (const ParameterSpec& p : layout->parameters) {
    for (int64_t i = p.offset; i < p.offset + p.size; ++i) {
      CHECK(x[i] >= 0 && x[i] < 1);
      CHECK(p.prunable || x[i] == 0);
      sum += x[i];
      n += p.prunable;
    }
  }
  CHECK(std::fabs(sum / static_cast<double>(n) - 0.5) < 0.02);  // 4590 of them: a standard error of 0.0043
  const auto halves = prune_by_scores(all_ones(layout), *scores, n / 2, false);
  CHECK(prune_by_scores(all_ones(layout), *random_scores(layout, 5, 1), n / 2, false)->words == halves->words);
  CHECK(prune_by_scores(all_ones(layout), *random_scores(layout, 6, 1), n / 2, false)->words != halves->words);
  CHECK(prune_by_scores(all_ones(layout), *random_scores(layout, 5, 2), n / 2, false)->words != halves->words);
}
