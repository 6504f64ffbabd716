#include "jpeg/exif.h"

#include <cstring>

namespace lth {

int exif_orientation(std::span<const uint8_t> marker) {
  constexpr size_t kPrefix = 6;  // "Exif\0\0", then a TIFF file
  if (marker.size() < kPrefix + 8 || std::memcmp(marker.data(), "Exif\0", 6) != 0) return 1;
  const std::span<const uint8_t> tiff = marker.subspan(kPrefix);
  const bool little = tiff[0] == 'I' && tiff[1] == 'I';
  if (!little && !(tiff[0] == 'M' && tiff[1] == 'M')) return 1;
  // Bytes [at, at + n) as a number; the caller has looked that they are there.
  const auto number = [&](size_t at, size_t n) {
    uint32_t value = 0;
    for (size_t i = 0; i < n; ++i) value |= static_cast<uint32_t>(tiff[at + i]) << 8 * (little ? i : n - 1 - i);
    return value;
  };
  if (number(2, 2) != 42) return 1;
  const size_t directory = number(4, 4);
  if (directory > tiff.size() - 2) return 1;
  const size_t entries = number(directory, 2);
  for (size_t i = 0; i < entries; ++i) {
    const size_t entry = directory + 2 + 12 * i;
    if (entry + 12 > tiff.size()) return 1;
    constexpr uint32_t kOrientation = 0x0112, kShort = 3;
    if (number(entry, 2) != kOrientation || number(entry + 2, 2) != kShort || number(entry + 4, 4) != 1) continue;
    const uint32_t value = number(entry + 8, 2);
    return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

}  // namespace lth
