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

std::shared_ptr<const Snapshot> random_scores(std::shared_ptr<const ParameterLayout> layout, uint64_t seed,
                                              uint32_t replicate) {
  auto out = std::make_shared<Snapshot>();
  out->dtype = Dtype::kFloat64;
  out->parameters = Arena(static_cast<size_t>(layout->arena * bytes_of(out->dtype)));
  auto* scores = reinterpret_cast<double*>(out->parameters.data());
  const Stream numbers = stream(seed, replicate, Purpose::kMask, 0);
  for (size_t i = 0; i < layout->parameters.size(); ++i) {
    const ParameterSpec& p = layout->parameters[i];
    // Epoch 0 of the purpose holds the permutations above.
    for (int64_t j = 0; p.prunable && j < p.size; ++j) {
      const uint64_t bits = numbers.bits64(static_cast<uint64_t>(j), 1, static_cast<uint32_t>(i));
      scores[p.offset + j] = static_cast<double>(bits >> 11) * 0x1p-53;
    }
  }
  out->layout = std::move(layout);
  return out;
}

}  // namespace lth
