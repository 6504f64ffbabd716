// Random numbers for tests.
#pragma once
#include <cstdint>
#include <vector>

#include "core/random.h"

namespace lth::test {

// Numbers by the dozen; each test has a stream of its own.
class Numbers {
 public:
  explicit Numbers(uint64_t seed) : stream_(stream(seed, 0, Purpose::kOrder, 0)) {}
  int64_t below(int64_t n) { return static_cast<int64_t>(stream_.bits64(next_++, 0, 0) % static_cast<uint64_t>(n)); }
  double normal() { return lth::normal(stream_, next_++, 0, 1); }
  template <typename T>
  std::vector<T> normals(int64_t n) {
    std::vector<T> out(static_cast<size_t>(n));
    for (T& x : out) x = static_cast<T>(normal());
    return out;
  }

 private:
  Stream stream_;
  uint64_t next_ = 0;
};

}  // namespace lth::test
