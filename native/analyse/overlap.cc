#include "analyse/overlap.h"

#include <bit>

#include "core/error.h"

namespace lth {

Overlaps overlap(const Masks& a, const Masks& b) {
  if (!a.layout->same_places(*b.layout)) {
    throw Error("wrong-shape", "[overlap] the masks belong to different networks");
  }
  Overlaps out;
  for (size_t i = 0; i < a.layout->parameters.size(); ++i) {
    const ParameterSpec& p = a.layout->parameters[i];
    if (!p.prunable) continue;
    Overlap one{p.name, p.size, a.remaining[i], b.remaining[i]};
    // Bits behind a tensor's end are zeros.
    for (int64_t word = p.offset / 64; word < (p.offset + p.size + 63) / 64; ++word) {
      one.intersection += std::popcount(a.words[word] & b.words[word]);
      one.union_ += std::popcount(a.words[word] | b.words[word]);
    }
    one.chance = static_cast<double>(one.a) * static_cast<double>(one.b) / static_cast<double>(one.size);
    out.total.size += one.size;
    out.total.a += one.a;
    out.total.b += one.b;
    out.total.intersection += one.intersection;
    out.total.union_ += one.union_;
    out.total.chance += one.chance;
    out.layers.push_back(one);
  }
  return out;
}

}  // namespace lth
