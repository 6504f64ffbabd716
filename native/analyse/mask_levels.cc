#include "analyse/mask_levels.h"

#include <string>

#include "analyse/prune.h"
#include "core/bitmask.h"
#include "core/error.h"

namespace lth {

std::vector<uint8_t> levels_of(std::span<const std::shared_ptr<const Masks>> masks) {
  if (masks.empty() || masks.size() > 255) {
    throw Error("invalid-argument", "[mask_levels] expected the masks of 1 to 255 levels but received " +
                                        std::to_string(masks.size()));
  }
  for (size_t i = 1; i < masks.size(); ++i) {
    if (!is_nested(*masks[i], *masks[i - 1])) {
      throw Error("invalid-argument", "[mask_levels] the masks of level " + std::to_string(i + 1) + " are not nested in those before");
    }
  }
  std::vector<uint8_t> levels;
  for (const ParameterSpec& p : masks[0]->layout->parameters) {
    if (!p.prunable) continue;
    const size_t first = levels.size();
    levels.resize(first + static_cast<size_t>(p.size));
    // From the last to the first: what is pruned at a level is pruned at all behind it.
    for (size_t i = masks.size(); i-- > 0;) {
      for (int64_t x = 0; x < p.size; ++x) {
        if (!bit_at(masks[i]->words, p.offset + x)) levels[first + static_cast<size_t>(x)] = static_cast<uint8_t>(i + 1);
      }
    }
  }
  return levels;
}

std::shared_ptr<const Masks> masks_at(std::shared_ptr<const ParameterLayout> layout, std::span<const uint8_t> levels,
                                      int level) {
  auto masks = std::make_shared<Masks>(all_ones(std::move(layout)));
  size_t prunable = 0;
  for (const ParameterSpec& p : masks->layout->parameters) prunable += p.prunable ? static_cast<size_t>(p.size) : 0;
  if (levels.size() != prunable) {
    throw Error("wrong-shape", "[mask_levels] " + std::to_string(levels.size()) + " weights do not fit a network that has (" +
                                   std::to_string(prunable) + ") to prune");
  }
  size_t at = 0;
  for (size_t i = 0; i < masks->layout->parameters.size(); ++i) {
    const ParameterSpec& p = masks->layout->parameters[i];
    if (!p.prunable) continue;
    for (int64_t x = 0; x < p.size; ++x, ++at) {
      if (levels[at] == 0 || levels[at] > level) continue;
      clear_bit(masks->words, p.offset + x);
      --masks->remaining[i];
    }
  }
  return masks;
}

}  // namespace lth
