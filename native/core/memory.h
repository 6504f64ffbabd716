// Where large pieces of memory come from.
#pragma once
#include <cstddef>
#include <cstdint>

namespace lth {

struct MemorySource {
  uint8_t* (*allocate)(size_t size);  // std::bad_alloc or an Error where there is none
  void (*release)(uint8_t* bytes, size_t size) noexcept;
};

}  // namespace lth
