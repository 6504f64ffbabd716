// The one thing of EXIF that changes a picture.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

namespace lth {

// The orientation, 1 to 8, out of the bytes of an APP1 marker behind its length; 1 where they hold none that is valid.
int exif_orientation(std::span<const uint8_t> marker);

}  // namespace lth
