#include "analyse/prune.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>
#include <vector>

#include "core/bitmask.h"
#include "core/error.h"

namespace lth {
namespace {

using Tensors = std::vector<const ParameterSpec*>;  // whose weights are ranked together

// Integers that sort as the values do. |w|: the IEEE bits without the sign.
uint32_t magnitude_of(float w) { return std::bit_cast<uint32_t>(w) << 1; }
uint64_t magnitude_of(double w) { return std::bit_cast<uint64_t>(w) << 1; }
// A score with its sign; -0 is +0.
uint64_t order_of(double score) {
  const uint64_t bits = std::bit_cast<uint64_t>(score + 0.0);
  return bits >> 63 ? ~bits : bits | uint64_t{1} << 63;
}

// Removes the first `count` of a pool from `masks`, by ascending rank_of(value), an unsigned integer; ties go by
// position. The rank's first 16 bits (sign, exponent, mantissa) sort the values into buckets; only the bucket in which
// the count runs out is ranked exactly. So two passes do, and no list of all weights is made.
template <typename T, typename Rank>
void remove_first(const Tensors& pool, const T* values, int64_t count, Masks& masks, const char* what, Rank rank_of) {
  using Integer = decltype(rank_of(T()));
  constexpr int kShift = sizeof(Integer) * 8 - 16;
  std::vector<int64_t> sizes(1 << 16, 0);
  for (const ParameterSpec* p : pool) {
    for_each_bit(masks.words, p->offset, p->size, [&](int64_t i) {
      if (!std::isfinite(values[i])) {
        throw Error("diverged", "[prune] " + p->name + " holds a " + what + " that is not finite at element " +
                                    std::to_string(i - p->offset));
      }
      ++sizes[rank_of(values[i]) >> kShift];
    });
  }
  if (count == 0) return;
  size_t last = 0;  // the bucket that is only partly removed
  for (; sizes[last] < count; ++last) count -= sizes[last];
  std::vector<std::pair<Integer, int64_t>> ranked;  // rank, then place: ties go by position
  ranked.reserve(static_cast<size_t>(sizes[last]));
  for (const ParameterSpec* p : pool) {
    for_each_bit(masks.words, p->offset, p->size, [&](int64_t i) {
      const size_t bucket = rank_of(values[i]) >> kShift;
      if (bucket < last) clear_bit(masks.words, i);
      if (bucket == last) ranked.emplace_back(rank_of(values[i]), i);
    });
  }
  std::nth_element(ranked.begin(), ranked.begin() + (count - 1), ranked.end());
  for (int64_t i = 0; i < count; ++i) clear_bit(masks.words, ranked[i].second);
}

template <typename T>
void remove_weights(const Tensors& pool, const Snapshot& weights, int64_t count, bool highest, Masks& masks) {
  const auto* values = reinterpret_cast<const T*>(weights.parameters.data());
  if (highest) {
    remove_first(pool, values, count, masks, "weight", [](T w) { return ~magnitude_of(w); });
  } else {
    remove_first(pool, values, count, masks, "weight", [](T w) { return magnitude_of(w); });
  }
}

void check_fraction(double fraction, const std::string& what) {
  if (!(fraction > 0 && fraction < 1)) {
    throw Error("invalid-argument", "[prune] " + what + ": expected a number between 0 and 1, both excluded, but received " +
                                        std::to_string(fraction));
  }
}

void check(const Masks& masks, const Snapshot& weights, const PruneOptions& o) {
  if (!weights.layout->same_places(*masks.layout)) {
    throw Error("wrong-shape", "[prune] the weights and the masks belong to different networks");
  }
  if (o.levels < 1) {
    throw Error("invalid-argument", "[prune] levels: expected 1 or more but received " + std::to_string(o.levels));
  }
  check_fraction(o.fraction, "fraction");
  if (!o.rates.empty() && !o.layerwise) {
    throw Error("invalid-argument", "[prune] rates by name need pooling layerwise");
  }
  for (const auto& [name, rate] : o.rates) {
    check_fraction(rate, "rate of " + name);
    std::string prunable;
    bool known = false;
    for (const ParameterSpec& p : masks.layout->parameters) {
      if (!p.prunable) continue;
      known = known || p.name == name;
      prunable += (prunable.empty() ? "" : ", ") + p.name;
    }
    if (!known) throw Error("invalid-argument", "[prune] rates: \"" + name + "\" is none of " + prunable);
  }
}

int64_t count_after_levels(double fraction, int64_t remaining, int levels) {
  int64_t gone = 0;
  for (int level = 0; level < levels; ++level) gone += pruned_count(fraction, remaining - gone);
  return gone;
}

void recount(Masks& masks) {
  for (size_t i = 0; i < masks.layout->parameters.size(); ++i) {
    const ParameterSpec& p = masks.layout->parameters[i];
    masks.remaining[i] = count_bits(masks.words, p.offset, p.size);
  }
}

}  // namespace

Masks all_ones(std::shared_ptr<const ParameterLayout> layout) {
  Masks masks;
  masks.words.assign(static_cast<size_t>(layout->arena / 64), 0);
  for (const ParameterSpec& p : layout->parameters) {
    fill_bits(masks.words, p.offset, p.size);
    masks.remaining.push_back(p.size);
  }
  masks.layout = std::move(layout);
  return masks;
}

int64_t pruned_count(double fraction, int64_t remaining) {
  const double exact = fraction * static_cast<double>(remaining);
  // A decimal's double is off by at most half an ulp, so the product by about one: nearer than this to the next
  // whole number means that number.
  const double nearest = std::round(exact);
  if (std::fabs(exact - nearest) <= std::fabs(exact) * 0x1p-51) return static_cast<int64_t>(nearest);
  return static_cast<int64_t>(std::floor(exact));
}

std::shared_ptr<const Masks> prune(const Masks& masks, const Snapshot& weights, const PruneOptions& o) {
  check(masks, weights, o);
  auto out = std::make_shared<Masks>(masks);
  const auto prune_pool = [&](const Tensors& pool, double fraction) {
    int64_t remaining = 0;
    for (const ParameterSpec* p : pool) remaining += count_bits(masks.words, p->offset, p->size);
    const int64_t count = count_after_levels(fraction, remaining, o.levels);
    if (weights.dtype == Dtype::kFloat32) {
      remove_weights<float>(pool, weights, count, o.highest, *out);
    } else {
      remove_weights<double>(pool, weights, count, o.highest, *out);
    }
  };
  Tensors all;
  for (const ParameterSpec& p : masks.layout->parameters) {
    if (!p.prunable) continue;
    all.push_back(&p);
    if (o.layerwise) {
      const auto rate = o.rates.find(p.name);
      prune_pool({&p}, rate == o.rates.end() ? o.fraction : rate->second);
    }
  }
  if (!o.layerwise) prune_pool(all, o.fraction);
  recount(*out);
  return out;
}

std::shared_ptr<const Masks> prune_by_scores(const Masks& masks, const Snapshot& scores, int64_t remaining, bool highest) {
  if (!scores.layout->same_places(*masks.layout)) {
    throw Error("wrong-shape", "[prune_by_scores] the scores and the masks belong to different networks");
  }
  if (scores.dtype != Dtype::kFloat64) {
    throw Error("wrong-shape", "[prune_by_scores] scores are fp64, these tensors are fp32: are they weights?");
  }
  auto out = std::make_shared<Masks>(masks);
  Tensors pool;
  int64_t here = 0;
  for (const ParameterSpec& p : masks.layout->parameters) {
    if (!p.prunable) continue;
    pool.push_back(&p);
    here += count_bits(masks.words, p.offset, p.size);
  }
  if (remaining < 0 || remaining > here) {
    throw Error("invalid-argument", "[prune_by_scores] remaining: expected 0 to " + std::to_string(here) +
                                        ", which the masks keep, but received " + std::to_string(remaining));
  }
  const auto* values = reinterpret_cast<const double*>(scores.parameters.data());
  if (highest) {
    remove_first(pool, values, here - remaining, *out, "score", [](double x) { return ~order_of(x); });
  } else {
    remove_first(pool, values, here - remaining, *out, "score", [](double x) { return order_of(x); });
  }
  recount(*out);
  return out;
}

std::shared_ptr<const Masks> masks_from_bits(std::shared_ptr<const ParameterLayout> layout,
                                             const std::map<std::string, std::span<const uint8_t>>& bits) {
  auto masks = std::make_shared<Masks>(all_ones(std::move(layout)));
  size_t known = 0;
  for (const ParameterSpec& p : masks->layout->parameters) {
    if (!p.prunable) continue;
    const auto found = bits.find(p.name);
    if (found == bits.end()) throw Error("invalid-argument", "[masks] no bits for " + p.name);
    ++known;
    const size_t wanted = static_cast<size_t>((p.size + 7) / 8);
    if (found->second.size() < wanted) {
      throw Error("wrong-shape", "[masks] " + p.name + " has " + std::to_string(found->second.size()) + " bytes of bits, its " +
                                     std::to_string(p.size) + " weights want " + std::to_string(wanted));
    }
    for (int64_t i = 0; i < p.size; ++i) {
      if (!(found->second[i / 8] >> (i % 8) & 1)) clear_bit(masks->words, p.offset + i);
    }
  }
  if (known != bits.size()) throw Error("invalid-argument", "[masks] bits for a parameter that is not prunable");
  recount(*masks);
  return masks;
}

int64_t pruned_but_not_zero(const Masks& masks, const Snapshot& snapshot) {
  if (!masks.layout->same_places(*snapshot.layout)) {
    throw Error("wrong-shape", "[verify] masks and snapshot belong to different networks");
  }
  int64_t found = 0;
  const auto look = [&](const Arena& arena, auto zero) {
    const auto* bits = reinterpret_cast<const decltype(zero)*>(arena.data());
    for (const ParameterSpec& p : masks.layout->parameters) {
      for (int64_t i = p.offset; i < p.offset + p.size; ++i) found += bits[i] != zero && !bit_at(masks.words, i);
    }
  };
  const auto look_at = [&](const Arena& arena) {
    snapshot.dtype == Dtype::kFloat32 ? look(arena, uint32_t{0}) : look(arena, uint64_t{0});
  };
  look_at(snapshot.parameters);
  for (const Snapshot::State& state : snapshot.optimiser) look_at(state.values);
  if (snapshot.average.size()) look_at(snapshot.average);
  return found;
}

bool is_nested(const Masks& inner, const Masks& outer) {
  if (!inner.layout->same_places(*outer.layout)) throw Error("wrong-shape", "[nested] the masks belong to different networks");
  for (size_t i = 0; i < inner.words.size(); ++i) {
    if (inner.words[i] & ~outer.words[i]) return false;
  }
  return true;
}

}  // namespace lth
