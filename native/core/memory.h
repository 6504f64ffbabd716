// Where large pieces of memory come from.
#pragma once
#include <cstddef>
#include <cstdint>

namespace lth {

// From any thread.
class MemorySource {
 public:
  virtual ~MemorySource() = default;
  // std::bad_alloc or an Error where there is none.
  virtual uint8_t* allocate(size_t size) const = 0;
  virtual void release(uint8_t* bytes, size_t size) const noexcept = 0;
};

}  // namespace lth
