// Dropout (Srivastava et al. 2014): which elements of a layer stay is a function of (seed, replicate, noise, epoch, example,
// layer, element), so it is the same for any batch size, executor, thread and resume.
#pragma once
#include <cstdint>

#include "core/random.h"

namespace lth {

struct DropoutNoise {
  Stream numbers;
  uint32_t epoch;
};

inline DropoutNoise dropout_noise(uint64_t seed, uint32_t replicate, uint64_t noise, uint32_t epoch) {
  return {stream(seed, replicate, Purpose::kDropout, noise), epoch};
}

// Words below this are of what is dropped.
inline uint32_t dropped_below(double probability) { return static_cast<uint32_t>(probability * 0x1p32); }

// f(element, whether it stays) for each element of the row `example` of the data set; `layer` counts those of dropout.
template <typename F>
void draw_dropout(const DropoutNoise& noise, int layer, int64_t example, int64_t elements, double probability, F&& f) {
  const uint32_t dropped = dropped_below(probability);
  const int64_t blocks = (elements + 3) / 4;
  for (int64_t block = 0; block < blocks; ++block) {
    const auto words = noise.numbers.words(static_cast<uint64_t>(example * blocks + block), noise.epoch, static_cast<uint32_t>(layer));
    for (int64_t i = 4 * block; i < elements && i < 4 * block + 4; ++i) f(i, words[static_cast<size_t>(i - 4 * block)] >= dropped);
  }
}

}  // namespace lth
