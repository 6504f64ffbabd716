// The learning rate as a function of the update alone, so that any step can be computed from its number.
#pragma once
#include <cstdint>
#include <vector>

namespace lth {

struct Schedule {
  double learning_rate = 0;
  std::vector<int64_t> milestones;
  double gamma = 0.1;
  int64_t warmup = 0;

  // Rate of update `step` (0-based). Linear warm-up: update 0 has rate 0; at step == milestone the rate has
  // already dropped (the semantics of open_lth, paper.md 5.1).
  double rate(int64_t step) const {
    double r = learning_rate;
    for (int64_t m : milestones) {
      if (step >= m) r *= gamma;
    }
    if (step < warmup) r *= static_cast<double>(step) / static_cast<double>(warmup);
    return r;
  }
};

}  // namespace lth
