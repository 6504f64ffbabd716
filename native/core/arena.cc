#include <cstring>

#include "core/error.h"
#include "core/snapshot.h"

namespace lth {

Arena::Arena(size_t bytes) : size_(bytes) {
  const size_t rounded = (bytes + 63) / 64 * 64;
  if (rounded == 0) return;
  data_.reset(static_cast<std::byte*>(std::aligned_alloc(64, rounded)));
  if (!data_) throw Error("io", "[memory] out of memory: wanted " + std::to_string(bytes) + " bytes");
  std::memset(data_.get(), 0, rounded);
}

}  // namespace lth
