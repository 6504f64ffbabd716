// Distance and angle between two trained copies (paper 3.1): || m*a - m*b || and the angle between m*a and m*b.
#pragma once
#include <string>
#include <vector>

#include "core/snapshot.h"

namespace lth {

// What enters the norm; the paper leaves it open. kMasked: prunable parameters times the masks. kAll: every trainable
// parameter, times the masks where it is prunable. Running statistics never do.
enum class Scope { kMasked, kAll };

struct Distance {
  std::string name;  // the parameter; empty for all together
  double distance = 0;
  // Degrees in [0, 180]; NaN where one of the two is a zero vector.
  double angle = 0;
};

struct Distances {
  Distance total;
  std::vector<Distance> layers;  // in the layout's order
};

// Summed up in double, element after element, on the calling thread: the same bits whoever calls. distance(a, b) and
// distance(b, a) are equal in every bit; identical weights have distance 0 and angle 0 exactly.
// Error("wrong-shape") where they belong to different networks or precisions, Error("diverged") where a weight that
// counts is not finite.
Distances distance(const Snapshot& a, const Snapshot& b, const Masks& masks, Scope scope);

}  // namespace lth
