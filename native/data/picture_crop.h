// Which part of a picture a network sees: crops of the recipes as functions of (seed, replicate, noise, epoch, example), so
// that they are the same for any batch size, thread and resume.
#pragma once
#include <cstdint>

#include "data/colour.h"
#include "data/resize.h"

namespace lth {

struct CropRule {
  enum Kind {
    kRandomResized,  // Szegedy et al. 2015: a share of the area with a random aspect ratio, as torchvision's RandomResizedCrop
    kScaledRandom,   // the short side becomes one of a range, then a random square (SqueezeNet)
    kCentre,         // the short side becomes `resize`, then the square in the middle
    kCentral,        // a share of both sides, as TensorFlow's central_crop
  } kind = kRandomResized;
  int64_t size = 224;  // side of the square that comes out
  Filter filter = Filter::kBilinear;
  bool flip = true;  // with probability 1/2; kRandomResized and kScaledRandom alone, as is
  Colour colour = Colour::kNone;
  double area_low = 0.08, area_high = 1, aspect_low = 3.0 / 4, aspect_high = 4.0 / 3;  // kRandomResized
  int64_t short_low = 256, short_high = 512;                                           // kScaledRandom
  int64_t resize = 256;                                                                // kCentre
  double fraction = 0.875;                                                             // kCentral
};

// Error("invalid-argument") names what no picture could be cropped by.
void check(const CropRule& rule);

// Who draws: an example of an epoch.
struct CropKey {
  uint64_t seed = 0;
  uint32_t replicate = 0;
  uint64_t noise = 0;
  uint32_t epoch = 0;
  int64_t example = 0;
};

struct PictureCrop {
  CropBox box;           // what becomes the square
  bool cut = false;  // pixels outside of the box do not count: it is cut out first and resized then
  bool flip = false;
  ColourShift colour = {};  // of the square
};

// Of a picture of (height, width). Frozen by golden vectors: changing it would change every run.
PictureCrop picture_crop(const CropRule& rule, const CropKey& key, int64_t height, int64_t width);

}  // namespace lth
