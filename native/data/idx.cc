#include "data/idx.h"

#include <cstdio>
#include <limits>

#include "core/error.h"

namespace lth {
namespace {

uint32_t big_endian(std::span<const uint8_t> b, size_t at) {
  return static_cast<uint32_t>(b[at]) << 24 | static_cast<uint32_t>(b[at + 1]) << 16 |
         static_cast<uint32_t>(b[at + 2]) << 8 | b[at + 3];
}

std::string hex(uint32_t n) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", n);
  return text;
}

}  // namespace

Idx parse_idx(std::span<const uint8_t> bytes, int dimensions, const std::string& name) {
  const auto corrupt = [&](const std::string& what) { return Error("corrupt-file", "[idx] " + name + ": " + what); };
  if (bytes.empty()) throw corrupt("is empty");
  const size_t header = 4 + 4 * static_cast<size_t>(dimensions);
  const uint32_t magic = 0x00000800u | static_cast<uint32_t>(dimensions);
  if (bytes.size() < 4) throw corrupt("has " + std::to_string(bytes.size()) + " bytes, a header needs " + std::to_string(header));
  if (big_endian(bytes, 0) != magic) {
    throw corrupt("wrong magic " + hex(big_endian(bytes, 0)) + ", expected " + hex(magic) +
                  (dimensions == 3 ? " (images, unsigned bytes)" : " (labels, unsigned bytes)"));
  }
  if (bytes.size() < header) throw corrupt("has " + std::to_string(bytes.size()) + " bytes, a header needs " + std::to_string(header));
  Idx out;
  uint64_t size = 1;
  for (int d = 0; d < dimensions; ++d) {
    const uint32_t extent = big_endian(bytes, 4 + 4 * static_cast<size_t>(d));
    if (extent == 0) throw corrupt("dimension " + std::to_string(d) + " is 0");
    if (extent > static_cast<uint32_t>(std::numeric_limits<int32_t>::max()) ||
        size > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) / extent) {
      throw corrupt("dimension " + std::to_string(d) + " of " + std::to_string(extent) + " is too large");
    }
    size *= extent;
    out.shape.push_back(extent);
  }
  if (bytes.size() - header != size) {
    throw corrupt(std::string(bytes.size() - header < size ? "truncated" : "too long") + ": holds " +
                  std::to_string(bytes.size() - header) + " bytes of data, its header says " + std::to_string(size));
  }
  out.elements = bytes.subspan(header);
  return out;
}

}  // namespace lth
