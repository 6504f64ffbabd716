// Shapes in words, for errors.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace lth {

// "(64,3,3,3)"
inline std::string text_of(const std::vector<int64_t>& shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? "," : "") + std::to_string(shape[i]);
  return text + ")";
}

}  // namespace lth
