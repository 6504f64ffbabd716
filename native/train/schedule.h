// The learning rate as a function of the update alone, so that any step can be computed from its number.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

namespace lth {

struct Schedule {
  double learning_rate = 0;
  std::vector<int64_t> milestones;
  double gamma = 0.1;
  int64_t warmup = 0;
  // In a line from learning_rate at update 0 to `linear_to` at `linear_steps`, and that from there on; 0 steps: not.
  double linear_to = 0;
  int64_t linear_steps = 0;
  // Times `decay` every so many updates, but never below learning_rate * decay_floor; 0: not.
  double decay = 1, decay_floor = 0;
  int64_t decay_every = 0;
  // The rate of this update for all of them; -1: not.
  int64_t constant_at = -1;

  // Rate of update `step` (0-based). Linear warm-up: update 0 has rate 0; at step == milestone the rate has
  // already dropped (the semantics of open_lth, paper.md 5.1).
  double rate(int64_t step) const {
    if (constant_at >= 0) step = constant_at;
    double r = learning_rate;
    if (linear_steps > 0) {
      r += (linear_to - learning_rate) * (static_cast<double>(std::min(step, linear_steps)) / static_cast<double>(linear_steps));
    }
    for (int64_t m : milestones) {
      if (step >= m) r *= gamma;
    }
    if (decay_every > 0) {
      // By products alone, as the C library's pow differs between versions.
      const double least = learning_rate * decay_floor;
      for (int64_t i = step / decay_every; i > 0 && r > least; --i) r *= decay;
      r = std::max(r, least);
    }
    if (step < warmup) r *= static_cast<double>(step) / static_cast<double>(warmup);
    return r;
  }
};

}  // namespace lth
