// Points on the straight line between two snapshots (linear mode connectivity).
#pragma once
#include <memory>

#include "core/snapshot.h"

namespace lth {

// (1 - alpha) * a + alpha * b over all parameters, running statistics included, rounded once; alpha in [0, 1]. At
// alpha 0 and 1 the parameters are those of a and b in every bit, and where a and b agree the line stays there. Where
// both have moving averages, so has the point, between theirs: what evaluations look at at the ends is what they looked at in
// the trainings. It has no optimiser state, and the step of a (at alpha 1: of b).
// Error("wrong-shape") where they belong to different networks or precisions, Error("invalid-argument").
std::shared_ptr<const Snapshot> interpolate(const Snapshot& a, const Snapshot& b, double alpha);

}  // namespace lth
