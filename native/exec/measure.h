// Measures what sparse products cost beside dense ones on the machine at hand (kernels/tuning.h).
#pragma once
#include <functional>
#include <optional>

#include "kernels/tuning.h"

namespace lth {

// Runs the kernels of `isa` on layers of the networks that are pruned here, `threads` slices at a time, so many rounds at most:
// some seconds, on the calling thread and on those of a pool. None where `stopping` says so on the way.
std::optional<Tuning> measure_costs(Isa isa, int threads, int rounds, const std::function<bool()>& stopping);

}  // namespace lth
