// Augmentation of training pictures: a random crop of the padded picture, and a random horizontal flip. Which one is
// a function of (seed, replicate, noise, epoch, example), so it is the same for any batch size, thread and resume.
#pragma once
#include <cstdint>

namespace lth {

struct Augmentation {
  int pad = 0;        // pixels of byte 0 on each side, 0 to 16; the crop has the size of the picture
  bool flip = false;  // with probability 1/2

  bool any() const { return pad > 0 || flip; }
};

constexpr int kMostPad = 16;

// Element (y,x) is the picture's (y + dy, x + dx), 0 outside of it; flipped, (y, W-1-x) of that.
struct Crop {
  int8_t dy = 0, dx = 0;  // in [-pad, pad]
  bool flip = false;
};

// `example` is the row of the data set. Frozen by golden vectors: changing it would change every augmented run.
Crop crop_of(uint64_t seed, uint32_t replicate, uint64_t noise, uint32_t epoch, int64_t example,
             const Augmentation& augmentation);

// image and out are (C,H,W) bytes and do not overlap. What torchvision's RandomCrop(H, padding) and then
// RandomHorizontalFlip make of the bytes, for top = pad + dy and left = pad + dx.
void augment_image(const uint8_t* image, int64_t channels, int64_t height, int64_t width, Crop crop, uint8_t* out);

}  // namespace lth
