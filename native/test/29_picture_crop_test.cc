// Crops: drawn as promised, and pictures as networks see them.
#include <algorithm>
#include <array>
#include <cmath>

#include "check.h"
#include "data/picture_crop.h"
#include "data/picture_input.h"
#include "pictures.h"

using namespace lth;
using namespace lth::test;

namespace {

using Numbers = std::array<double, 5>;
Numbers numbers(const PictureCrop& crop) {
  return {crop.box.top, crop.box.left, crop.box.height, crop.box.width, crop.flip ? 1.0 : 0.0};
}

const CropRule inception{};
const CropRule squeezenet{.kind = CropRule::kScaledRandom};
const CropRule centre{.kind = CropRule::kCentre};
const CropRule central{.kind = CropRule::kCentral, .size = 299};

std::vector<uint8_t> input(const std::vector<std::byte>& file, const CropRule& rule, const CropKey& key, bool upright = false) {
  std::vector<uint8_t> out(static_cast<size_t>(3 * rule.size * rule.size));
  PictureInput().make(file, "input", rule, key, upright, {out.data(), 3 * rule.size, 3, 1});
  return out;
}

double mean_difference(const std::vector<uint8_t>& a, const std::vector<uint8_t>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::abs(a[i] - b[i]);
  return sum / static_cast<double>(a.size());
}

}  // namespace

TEST("crops are frozen: a function of seed, replicate, noise, epoch and example") {
  const std::array<Numbers, 4> golden = {{{0, 167, 375, 287, 1}, {49, 67, 299, 381, 0}, {25, 129, 271, 349, 1}, {77, 226, 292, 254, 0}}};
  for (int64_t example = 0; example < 4; ++example)
    CHECK_EQUAL(numbers(picture_crop(inception, {.seed = 1, .example = example}, 375, 500)), golden[static_cast<size_t>(example)]);
  CHECK_EQUAL(numbers(picture_crop(inception, {7, 2, 123456789012, 89, 1'281'166}, 375, 500)), (Numbers{0, 53, 346, 313, 1}));
  CHECK_EQUAL(numbers(picture_crop(squeezenet, {.seed = 1, .example = 3}, 400, 300)),
              (Numbers{110.73446327683617, 12.406015037593985, 253.10734463276836, 252.63157894736844, 0}));
  CHECK_EQUAL(numbers(picture_crop(squeezenet, {.seed = 1, .example = 4}, 300, 500)),
              (Numbers{97.455968688845402, 162.7497062279671, 131.50684931506848, 131.60987074030552, 0}));
  const auto hundred = [&](const CropRule& rule, CropKey key) {
    std::vector<Numbers> all;
    for (key.example = 0; key.example < 100; ++key.example) all.push_back(numbers(picture_crop(rule, key, 375, 500)));
    return all;
  };
  for (const CropRule& rule : {inception, squeezenet}) {
    const auto base = hundred(rule, {.seed = 1});
    CHECK(hundred(rule, {.seed = 1}) == base);
    for (const CropKey& other : {CropKey{.seed = 2}, CropKey{.seed = 1, .replicate = 1}, CropKey{.seed = 1, .noise = 1},
                                 CropKey{.seed = 1, .epoch = 1}})
      CHECK(hundred(rule, other) != base);
  }
}

TEST("a random-resized crop lies in the picture, with area and aspect ratio in their ranges and uniform as promised") {
  double area = 0, aspect = 0, flips = 0, top = 0;
  const int draws = 20000;
  for (int64_t i = 0; i < draws; ++i) {
    const PictureCrop crop = picture_crop(inception, {.seed = 4, .example = i}, 600, 600);
    const CropBox& b = crop.box;
    CHECK(crop.cut);
    CHECK(b.top >= 0 && b.left >= 0 && b.height >= 1 && b.width >= 1 && b.top + b.height <= 600 && b.left + b.width <= 600);
    for (const double one : {b.top, b.left, b.height, b.width}) CHECK(one == std::floor(one));
    const double share = b.height * b.width / 360000, ratio = b.width / b.height;
    CHECK(share > 0.079 && share <= 1.0 && ratio > 0.745 && ratio < 1.342);
    area += share;
    aspect += std::log(ratio);
    flips += crop.flip;
    if (b.height < 600) top += b.top / (600 - b.height);
  }
  // Those that do not fit are drawn again, which takes away some of the largest: 0.54 without that.
  CHECK(std::fabs(area / draws - 0.478) < 0.008);
  CHECK(std::fabs(aspect / draws) < 0.01);
  CHECK(std::fabs(flips / draws - 0.5) < 0.02);
  CHECK(std::fabs(top / draws - 0.5) < 0.02);
}

TEST("where no crop fits, the middle is taken with the nearest aspect ratio; a picture of one pixel has one crop") {
  // Of 1000 x 10 a crop of 8 % of the area and 4/3 at most is wider than the picture.
  const CropBox tall = picture_crop(inception, {.seed = 1}, 1000, 10).box;
  CHECK_EQUAL(numbers({tall}), (Numbers{493, 0, 13, 10, 0}));
  const CropBox wide = picture_crop(inception, {.seed = 1}, 10, 1000).box;
  CHECK_EQUAL(numbers({wide}), (Numbers{0, 493, 10, 13, 0}));
  for (int64_t i = 0; i < 50; ++i) {
    const CropBox one = picture_crop(inception, {.seed = 2, .example = i}, 1, 1).box;
    CHECK_EQUAL(numbers({one}), (Numbers{0, 0, 1, 1, 0}));
  }
}

TEST("a scaled random crop is a square of the scaled picture: sides of 256 to 512, each as often") {
  std::vector<int> sides(513);
  for (int64_t i = 0; i < 20000; ++i) {
    const PictureCrop crop = picture_crop(squeezenet, {.seed = 3, .example = i}, 500, 400);
    const double side = 224 * 400 / crop.box.width;
    CHECK(!crop.cut && crop.box.top >= 0 && crop.box.left >= 0);
    CHECK(crop.box.top + crop.box.height <= 500 && crop.box.left + crop.box.width <= 400);
    CHECK(std::fabs(side - std::round(side)) < 1e-9);
    ++sides.at(static_cast<size_t>(std::lround(side)));
  }
  for (int side = 0; side <= 512; ++side) CHECK(side < 256 ? sides[side] == 0 : sides[side] > 30 && sides[side] < 140);
}

TEST("evaluation's crops are torchvision's and TensorFlow's, whoever asks") {
  for (const int64_t example : {0, 5}) {
    const CropKey key{.seed = 9, .epoch = 3, .example = example};
    // 375 x 500 becomes 256 x 341; the square begins at (16, 58).
    const PictureCrop crop = picture_crop(centre, key, 375, 500);
    CHECK(std::fabs(crop.box.top - 16 * 375.0 / 256) < 1e-9 && std::fabs(crop.box.left - 58 * 500.0 / 341) < 1e-9);
    CHECK(std::fabs(crop.box.height - 224 * 375.0 / 256) < 1e-9 && std::fabs(crop.box.width - 224 * 500.0 / 341) < 1e-9);
    CHECK(!crop.cut && !crop.flip);
    const PictureCrop inner = picture_crop(central, key, 375, 500);
    CHECK_EQUAL(numbers(inner), (Numbers{23, 31, 329, 438, 0}));
    CHECK(inner.cut);
  }
}

TEST("a rule that fits no picture is refused") {
  for (const CropRule& rule : {CropRule{.size = 0}, CropRule{.area_low = 0}, CropRule{.area_high = 1.5}, CropRule{.aspect_low = 2},
                               CropRule{.kind = CropRule::kCentre, .size = 300, .resize = 256},
                               CropRule{.kind = CropRule::kScaledRandom, .size = 300}, CropRule{.fraction = 0}}) {
    CHECK_THROWS({ check(rule); }, "invalid-argument", {"[crop]"});
  }
}

TEST("a crop that is decoded in part is that of the picture decoded whole") {
  const auto jpeg = jpeg_of(test_picture(230, 310), {.quality = 95});
  PictureReader reader;
  reader.open(jpeg, "whole");
  const Patch whole = reader.read({0, 0, 230, 310}, 1);
  for (CropRule rule : {CropRule{.size = 48},
                        CropRule{.kind = CropRule::kScaledRandom, .size = 48, .short_low = 50, .short_high = 80},
                        CropRule{.kind = CropRule::kCentre, .size = 48, .resize = 56},
                        CropRule{.kind = CropRule::kCentral, .size = 48}}) {
    for (const Filter filter : {Filter::kBilinear, Filter::kBicubic}) {
      rule.filter = filter;
      for (int64_t i = 0; i < 40; ++i) {
        const CropKey key{.seed = 5, .example = i};
        const PictureCrop crop = picture_crop(rule, key, 230, 310);
        Patch from = whole;
        CropBox box = crop.box;
        if (crop.cut) {
          from.pixels += static_cast<int64_t>(box.top) * whole.stride + static_cast<int64_t>(box.left) * 3;
          from.height = static_cast<int64_t>(box.height);
          from.width = static_cast<int64_t>(box.width);
          box.top = box.left = 0;
        }
        std::vector<uint8_t> expected(48 * 48 * 3);
        PixelLayout to{expected.data(), 144, 3, 1};
        if (crop.flip) to = {expected.data() + 47 * 3, 144, -3, 1};
        Resizer().resize(from, box, filter, 48, 48, to);
        const double off = mean_difference(input(jpeg, rule, key), expected);
        // Made smaller by 2 in the transform; 51-pictures has real ones.
        const bool shrunk = std::min(box.height, box.width) >= 4 * 48;
        CHECK(shrunk ? off > 0.002 && off < 2 : off < 0.002);
      }
    }
  }
}

TEST("EXIF's orientation is ignored, and applied where that is asked for") {
  const TestPicture p = test_picture(90, 140);
  const CropRule rule{.kind = CropRule::kCentral, .size = 64, .fraction = 1};
  const auto plain = input(jpeg_of(p, {.across = 1, .down = 1}), rule, {});
  const auto at = [](const std::vector<uint8_t>& picture, int64_t y, int64_t x) { return picture.data() + (y * 64 + x) * 3; };
  for (int orientation = 1; orientation <= 8; ++orientation) {
    const auto file = jpeg_of(p, {.across = 1, .down = 1, .orientation = orientation});
    CHECK(input(file, rule, {}) == plain);
    const auto upright = input(file, rule, {}, true);
    bool same = true;
    for (int64_t y = 0; y < 64; ++y) {
      for (int64_t x = 0; x < 64; ++x) {
        // Where EXIF says that row 0 and column 0 of the stored picture are.
        const std::array<std::array<int64_t, 2>, 9> from = {{{}, {y, x}, {y, 63 - x}, {63 - y, 63 - x}, {63 - y, x},
                                                             {x, y}, {63 - x, y}, {63 - x, 63 - y}, {x, 63 - y}}};
        const auto [sy, sx] = from[static_cast<size_t>(orientation)];
        same = same && std::equal(at(upright, y, x), at(upright, y, x) + 3, at(plain, sy, sx));
      }
    }
    CHECK(same);
  }
}

TEST("an upright crop is the crop of the upright picture, mirrored where the example is") {
  const TestPicture p = test_picture(120, 200);
  TestPicture turned{200, 120, 3, {}};  // by a quarter to the right: what orientation 6 asks for
  for (int64_t y = 0; y < 200; ++y) {
    for (int64_t x = 0; x < 120; ++x) turned.pixels.insert(turned.pixels.end(), p.at(119 - x, y), p.at(119 - x, y) + 3);
  }
  const CropRule rule{.size = 48};
  for (int64_t i = 0; i < 30; ++i) {
    const CropKey key{.seed = 8, .example = i};
    const auto a = input(jpeg_of(p, {.across = 1, .down = 1, .quality = 100, .orientation = 6}), rule, key, true);
    CHECK(mean_difference(a, input(png_of(turned), rule, key)) < 2.5);
  }
}
