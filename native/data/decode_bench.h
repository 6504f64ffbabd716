// The limit of whoever reads JPEG files: libjpeg-turbo decoding them whole, and nothing else.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "data/picture_set.h"

namespace lth {

struct DecodeTimes {
  double seconds = 0;
  double pixels = 0;
};

// `rows` once each on so many threads; the files are in memory before the clock starts. Nothing where it was stopped. Files
// that cannot be decoded are errors.
std::optional<DecodeTimes> time_decode(const PictureSet& set, const std::vector<int32_t>& rows, int threads,
                                       const std::function<bool()>& stopping);

}  // namespace lth
