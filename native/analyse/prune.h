// Pruning with exact counts: by magnitude (paper 1.2: the smallest |w_T| among what remains) or by scores (4.2).
#pragma once
#include <map>
#include <memory>
#include <span>
#include <string>

#include "core/snapshot.h"

namespace lth {

Masks all_ones(std::shared_ptr<const ParameterLayout> layout);

struct PruneOptions {
  double fraction = 0.2;  // of the remaining weights, in (0, 1)
  int levels = 1;         // apply the count this often before choosing: n is one-shot to level n
  bool layerwise = false;  // otherwise one pool over all prunable tensors
  std::map<std::string, double> rates;  // layerwise: another fraction by parameter name
  bool highest = false;  // the largest |w| go instead: the ablation "invert"
};

// Removes floor(fraction * remaining) weights per level; ties go by position, the lower goes first. A weight that is
// not finite is Error("diverged").
std::shared_ptr<const Masks> prune(const Masks& masks, const Snapshot& weights, const PruneOptions& options);

// Removes the lowest scores (or the highest), one pool over all prunable tensors, until `remaining` weights are left;
// ties go by position, the lower goes first. Scores are an fp64 arena. One that is not finite is Error("diverged").
std::shared_ptr<const Masks> prune_by_scores(const Masks& masks, const Snapshot& scores, int64_t remaining, bool highest);

// floor(fraction * remaining) for the decimal that `fraction` was written as: 0.2 of 5 is 1 and 0.29 of 100 is 29,
// although the nearest doubles multiply to a little less.
int64_t pruned_count(double fraction, int64_t remaining);

std::shared_ptr<const Masks> masks_from_bits(std::shared_ptr<const ParameterLayout> layout,
                                             const std::map<std::string, std::span<const uint8_t>>& bits);

// Entries of pruned places, in weights and optimiser state, that are not exactly +0 (design: contract 7 says none is).
int64_t pruned_but_not_zero(const Masks& masks, const Snapshot& snapshot);

// Is every weight of `inner` also in `outer`?
bool is_nested(const Masks& inner, const Masks& outer);

}  // namespace lth
