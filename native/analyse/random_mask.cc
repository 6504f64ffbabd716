#include "analyse/random_mask.h"

#include "core/bitmask.h"
#include "core/random.h"

namespace lth {

std::shared_ptr<const Masks> random_masks(const Masks& counts, uint64_t seed, uint32_t replicate) {
  auto out = std::make_shared<Masks>(counts);
  const Stream numbers = stream(seed, replicate, Purpose::kMask, 0);
  for (size_t i = 0; i < counts.layout->parameters.size(); ++i) {
    const ParameterSpec& p = counts.layout->parameters[i];
    if (!p.prunable) continue;
    for (int64_t word = 0; word < (p.size + 63) / 64; ++word) out->words[p.offset / 64 + word] = 0;
    const auto places = permutation(numbers, p.size, 0, static_cast<uint32_t>(i));
    for (int64_t kept = 0; kept < counts.remaining[i]; ++kept) set_bit(out->words, p.offset + places[kept]);
  }
  return out;
}

}  // namespace lth
