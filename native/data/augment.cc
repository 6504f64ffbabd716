#include "data/augment.h"

#include <algorithm>

#include "core/random.h"

namespace lth {

Crop crop_of(uint64_t seed, uint32_t replicate, uint64_t noise, uint32_t epoch, int64_t example,
             const Augmentation& augmentation) {
  const auto words =
      stream(seed, replicate, Purpose::kAugmentation, noise).words(static_cast<uint64_t>(example), epoch, 0);
  // One of 2 pad + 1 offsets: the product's upper half is uniform to 1e-8.
  const auto offset = [&](uint32_t word) {
    const auto choices = static_cast<uint64_t>(2 * augmentation.pad + 1);
    return static_cast<int8_t>(static_cast<int>(word * choices >> 32) - augmentation.pad);
  };
  return {.dy = offset(words[0]), .dx = offset(words[1]), .flip = augmentation.flip && words[2] >> 31 != 0};
}

void augment_image(const uint8_t* image, int64_t channels, int64_t height, int64_t width, Crop crop, uint8_t* out) {
  // Columns x of the crop that lie inside the picture.
  const int64_t left = std::clamp<int64_t>(-crop.dx, 0, width), right = std::clamp<int64_t>(width - crop.dx, left, width);
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t y = 0; y < height; ++y, out += width) {
      const int64_t from = y + crop.dy;
      if (from < 0 || from >= height) {
        std::fill_n(out, width, uint8_t{0});
        continue;
      }
      const uint8_t* row = image + (c * height + from) * width;
      std::fill_n(out, left, uint8_t{0});
      std::copy(row + left + crop.dx, row + right + crop.dx, out + left);
      std::fill_n(out + right, width - right, uint8_t{0});
      if (crop.flip) std::reverse(out, out + width);
    }
  }
}

}  // namespace lth
