// Crops: drawn as promised, cut as torchvision cuts them.
#include <algorithm>
#include <array>
#include <cmath>

#include "check.h"
#include "data/augment.h"

using namespace lth;

namespace {

// Pads the whole picture with zeros, cuts out of it, mirrors: the plain version.
std::vector<uint8_t> plain(const std::vector<uint8_t>& image, int channels, int height, int width, Crop crop, int pad) {
  const int padded = width + 2 * pad;
  std::vector<uint8_t> out;
  for (int c = 0; c < channels; ++c) {
    std::vector<uint8_t> canvas(static_cast<size_t>((height + 2 * pad) * padded));
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x)
        canvas[static_cast<size_t>((y + pad) * padded + x + pad)] =
            image[static_cast<size_t>((c * height + y) * width + x)];
    }
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) {
        const int column = crop.flip ? width - 1 - x : x;
        out.push_back(canvas[static_cast<size_t>((y + pad + crop.dy) * padded + column + pad + crop.dx)]);
      }
    }
  }
  return out;
}

std::array<int, 3> triple(Crop crop) { return {crop.dy, crop.dx, crop.flip}; }

}  // namespace

TEST("every crop, flipped or not, is that of the padded picture") {
  const int channels = 2, height = 5, width = 7;
  std::vector<uint8_t> image(channels * height * width);
  for (size_t i = 0; i < image.size(); ++i) image[i] = static_cast<uint8_t>(i + 1);
  for (int dy = -9; dy <= 9; ++dy) {
    for (int dx = -9; dx <= 9; ++dx) {
      for (const bool flip : {false, true}) {
        const Crop crop{static_cast<int8_t>(dy), static_cast<int8_t>(dx), flip};
        std::vector<uint8_t> out(image.size(), 0xee);
        augment_image(image.data(), channels, height, width, crop, out.data());
        CHECK(out == plain(image, channels, height, width, crop, 9));
      }
    }
  }
}

TEST("crops are frozen: a function of seed, replicate, noise, epoch and example") {
  const Augmentation standard{.pad = 4, .flip = true};
  const std::array<std::array<int, 3>, 5> golden = {{{-1, 0, 1}, {2, -1, 0}, {4, -2, 1}, {-4, 2, 0}, {4, 1, 0}}};
  for (int64_t example = 0; example < 5; ++example)
    CHECK_EQUAL(triple(crop_of(1, 0, 0, 0, example, standard)), golden[static_cast<size_t>(example)]);
  CHECK_EQUAL(triple(crop_of(7, 2, 123456789012, 159, 49'999, standard)), (std::array<int, 3>{-3, -2, 1}));
  const auto hundred = [&](uint64_t seed, uint32_t replicate, uint64_t noise, uint32_t epoch) {
    std::vector<std::array<int, 3>> all;
    for (int64_t i = 0; i < 100; ++i) all.push_back(triple(crop_of(seed, replicate, noise, epoch, i, standard)));
    return all;
  };
  const auto base = hundred(1, 0, 0, 0);
  CHECK(hundred(1, 0, 0, 0) == base);
  for (const auto& other : {hundred(2, 0, 0, 0), hundred(1, 1, 0, 0), hundred(1, 0, 1, 0), hundred(1, 0, 0, 1)})
    CHECK(other != base);
}

TEST("offsets are uniform over the (2 pad + 1)^2 places, and half of the pictures are flipped, independently") {
  for (const int pad : {1, 4, 16}) {
    const int choices = 2 * pad + 1, cells = choices * choices;
    const int draws = cells * 200;
    std::vector<int> counts(static_cast<size_t>(cells) * 2);
    for (int i = 0; i < draws; ++i) {
      const Crop crop = crop_of(5, 0, 3, static_cast<uint32_t>(i / 1000), i % 1000, {.pad = pad, .flip = true});
      CHECK(crop.dy >= -pad && crop.dy <= pad && crop.dx >= -pad && crop.dx <= pad);
      ++counts[static_cast<size_t>(((crop.dy + pad) * choices + crop.dx + pad) * 2 + crop.flip)];
    }
    // Chi-squared: mean n and variance 2n for n degrees of freedom; five standard deviations.
    const double expected = draws / (2.0 * cells), freedom = 2 * cells - 1;
    double chi = 0;
    for (const int count : counts) chi += (count - expected) * (count - expected) / expected;
    CHECK(chi < freedom + 5 * std::sqrt(2 * freedom));
    CHECK(chi > freedom - 5 * std::sqrt(2 * freedom));
  }
}

TEST("what is not asked for is not done") {
  for (int64_t i = 0; i < 200; ++i) {
    const Crop flipped = crop_of(1, 0, 0, 0, i, {.pad = 0, .flip = true});
    CHECK(flipped.dy == 0 && flipped.dx == 0);
    CHECK(!crop_of(1, 0, 0, 0, i, {.pad = 4, .flip = false}).flip);
    // The offsets do not depend on whether pictures are flipped.
    CHECK_EQUAL(crop_of(1, 0, 0, 0, i, {.pad = 4, .flip = false}).dx, crop_of(1, 0, 0, 0, i, {.pad = 4, .flip = true}).dx);
  }
}
