// The control "random": as many weights per tensor as the given masks keep, at random places (paper section 2).
#pragma once
#include <cstdint>
#include <memory>

#include "core/snapshot.h"

namespace lth {

// One permutation per tensor, keyed by (seed, replicate), serves all levels: its first `remaining` places are kept,
// so that random masks are nested as IMP's are.
std::shared_ptr<const Masks> random_masks(const Masks& counts, uint64_t seed, uint32_t replicate);

// The baseline "random-global": U(0,1) for each prunable weight, of which one pool is pruned (paper 4.2), as fp64.
std::shared_ptr<const Snapshot> random_scores(std::shared_ptr<const ParameterLayout> layout, uint64_t seed,
                                              uint32_t replicate);

}  // namespace lth
