#include "data/order.h"

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "core/random.h"

namespace lth {

DataOrder::DataOrder(uint64_t seed, uint32_t replicate, int64_t examples, int64_t batch)
    : seed_(seed), replicate_(replicate), examples_(examples), batch_(batch) {
  if (examples < 1 || batch < 1 || batch > std::numeric_limits<int32_t>::max()) {
    throw Error("invalid-argument", "[order] cannot cut " + std::to_string(examples) + " examples into batches of " +
                                        std::to_string(batch));
  }
}

std::span<const int32_t> DataOrder::batch(int64_t step, uint64_t noise) {
  if (step < 0) throw Error("invalid-argument", "[order] step: expected 0 or more but received " + std::to_string(step));
  const int64_t epoch = step / updates_per_epoch(), first = step % updates_per_epoch() * batch_;
  if (epoch != epoch_ || noise != noise_) {
    order_ = permutation(stream(seed_, replicate_, Purpose::kOrder, noise), examples_, static_cast<uint32_t>(epoch), 0);
    epoch_ = epoch;
    noise_ = noise;
  }
  return std::span(order_).subspan(first, std::min(batch_, examples_ - first));
}

}  // namespace lth
