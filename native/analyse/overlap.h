// What two masks have in common, and how much two random ones would.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/snapshot.h"

namespace lth {

struct Overlap {
  std::string name;  // the parameter; empty for all prunable ones together
  int64_t size = 0;
  int64_t a = 0, b = 0;  // weights that each keeps
  int64_t intersection = 0, union_ = 0;
  // Expected intersection of independent random masks that keep as many of each tensor: the sum of a * b / size.
  double chance = 0;
};

struct Overlaps {
  Overlap total;
  std::vector<Overlap> layers;  // prunable parameters in the layout's order
};

// Error("wrong-shape") where the masks belong to different networks.
Overlaps overlap(const Masks& a, const Masks& b);

}  // namespace lth
