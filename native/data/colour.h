// Distortions of a picture's colours in training, as functions of (seed, replicate, noise, epoch, example).
#pragma once
#include <cstdint>
#include <vector>

#include "core/random.h"
#include "data/resize.h"

namespace lth {

enum class Colour {
  kNone,
  // What Google's code for TPUs does unless told otherwise (paper 2.2, "standard implementations for TPUs"): brightness plus at
  // most 32/255, Cb and Cr of JPEG's YCbCr plus at most 0.1.
  kBrightnessChroma,
  // TensorFlow-slim's distort_color (Szegedy et al. 2016), of its two modes the whole one: brightness plus at most 32/255,
  // saturation times 0.5 to 1.5, hue turned by at most 0.2, contrast times 0.5 to 1.5, in one of its four orders. Its
  // fast mode, brightness and saturation alone, is a trade of the field's best augmentation for time that C++ does not need.
  kInception,
};

// What is done to one example; these numbers leave it as it is.
struct ColourShift {
  Colour kind = Colour::kNone;
  int order = 0;         // kInception: which of slim's, 0 to 3
  double brightness = 0; // plus, of values in [0,1]
  double saturation = 1; // times
  double hue = 0;        // of the whole circle
  double contrast = 1;   // times the distance from the channel's mean
  double cb = 0, cr = 0; // kBrightnessChroma: plus
};

// Frozen by golden vectors, as crops are. Reads words 32 and 33 of the stream that draws an example's crop.
ColourShift colour_shift(Colour kind, const Stream& stream, int64_t example, uint32_t epoch);

// In place, rgb is (3,count) with values in [0,1]; clipped to that at the end, not between, as slim's are. Single precision, by
// + - * / and comparisons alone; means over a channel in double, in the order of the pixels.
void distort(const ColourShift& shift, float* rgb, int64_t count);

class ColourDistorter {
 public:
  // The square of `size` at `pixels`, in place; bytes are rounded to the nearest.
  void distort(const ColourShift& shift, int64_t size, const PixelLayout& pixels);

 private:
  std::vector<float> values_;
};

}  // namespace lth
