// Nested masks as one level a weight.
#include "analyse/mask_levels.h"

#include "analyse/prune.h"
#include "check.h"
#include "networks.h"

using namespace lth;
using test::drawn;

TEST("masks of all levels come out of the levels of their weights as they were") {
  const auto layout = test::medium();
  std::vector<std::shared_ptr<const Masks>> all;
  auto masks = std::make_shared<const Masks>(all_ones(layout));
  for (int level = 1; level <= 30; ++level) {
    masks = prune(*masks, drawn<float>(layout, static_cast<uint64_t>(level)), {});
    all.push_back(masks);
  }
  const std::vector<uint8_t> levels = levels_of(all);
  CHECK_EQUAL(masks_at(layout, levels, 0)->words, all_ones(layout).words);
  for (int level = 1; level <= 30; ++level) {
    const auto got = masks_at(layout, levels, level);
    CHECK_EQUAL(got->words, all[static_cast<size_t>(level) - 1]->words);
    CHECK_EQUAL(got->remaining, all[static_cast<size_t>(level) - 1]->remaining);
  }
}

TEST("masks that are not nested, none, too many, or of another network are refused") {
  const auto layout = test::medium();
  const auto ones = std::make_shared<const Masks>(all_ones(layout));
  const auto a = prune(*ones, drawn<float>(layout, 1), {}), b = prune(*ones, drawn<float>(layout, 2), {});
  using All = std::vector<std::shared_ptr<const Masks>>;
  CHECK_THROWS({ levels_of(All({a, b})); }, "invalid-argument", {"level 2", "not nested"});
  CHECK_THROWS({ levels_of(All()); }, "invalid-argument", {"received 0"});
  CHECK_THROWS({ levels_of(All(256, a)); }, "invalid-argument", {"received 256"});
  std::vector<uint8_t> levels = levels_of(All({a}));
  levels.pop_back();
  CHECK_THROWS({ masks_at(layout, levels, 1); }, "wrong-shape", {std::to_string(levels.size()), std::to_string(levels.size() + 1)});
}
