// The control "random": as many weights per tensor as the given masks keep, at random places (paper section 2).
#pragma once
#include <cstdint>
#include <memory>

#include "core/snapshot.h"

namespace lth {

// One permutation per tensor, keyed by (seed, replicate), serves all levels: its first `remaining` places are kept,
// so that random masks are nested as IMP's are.
std::shared_ptr<const Masks> random_masks(const Masks& counts, uint64_t seed, uint32_t replicate);

}  // namespace lth
