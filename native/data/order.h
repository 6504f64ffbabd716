// The data order as a function of the step: epoch e of noise u is one permutation, and any batch can be computed
// from its number alone.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace lth {

class DataOrder {
 public:
  // At least one example and a batch of at least one, else Error("invalid-argument").
  DataOrder(uint64_t seed, uint32_t replicate, int64_t examples, int64_t batch);

  // The last, smaller batch of an epoch included.
  int64_t updates_per_epoch() const { return (examples_ + batch_ - 1) / batch_; }
  // Indices in [0, examples) of the batch of update `step` (from 0); valid until the next call.
  std::span<const int32_t> batch(int64_t step, uint64_t noise);

 private:
  uint64_t seed_;
  uint32_t replicate_;
  int64_t examples_, batch_;
  std::vector<int32_t> order_;  // of (noise_, epoch_)
  uint64_t noise_ = 0;
  int64_t epoch_ = -1;
};

}  // namespace lth
