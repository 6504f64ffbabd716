// JPEG and PNG files from outside. The first byte says how the picture is cropped; the rest is the file.
#include <array>
#include <cstdlib>
#include <span>

#include "data/picture_input.h"
#include "fuzz/target.h"
#include "pictures.h"

namespace {

using namespace lth;
using namespace lth::test;

// A larger one only takes longer: what is made of the size in a header is the business of the tests.
constexpr int64_t kMost = int64_t{1} << 16;

Bytes seed(uint8_t how, const std::vector<std::byte>& file) {
  Bytes bytes = {how};
  for (const std::byte one : file) bytes.push_back(std::to_integer<uint8_t>(one));
  return bytes;
}

}  // namespace

std::vector<Bytes> fuzz_seeds() {
  const TestPicture p = test_picture(37, 45);
  std::vector<std::vector<uint8_t>> wide(9, std::vector<uint8_t>(11 * 8, 77)), indexed(9, std::vector<uint8_t>(11, 2));
  const std::vector<png_color> palette = {{1, 2, 3}, {4, 5, 6}, {7, 8, 9}};
  return {seed(0, jpeg_of(p, {.orientation = 6})),
          seed(1, jpeg_of(p, {.across = 1, .down = 1, .restart = 1})),
          seed(0x95, jpeg_of(p, {.interval = 1})),
          seed(0xe1, jpeg_of(p, {.across = 2, .down = 1, .interval = 2})),
          seed(2, jpeg_of(p, {.progressive = true})),
          seed(7, jpeg_of(p, {.arithmetic = true})),
          seed(8, jpeg_of(test_picture(20, 90, 1))),
          seed(3, jpeg_of(test_picture(30, 30, 4), {.stored = JCS_YCCK})),
          seed(4, jpeg_of(test_picture(90, 130), {.quality = 40})),
          seed(0, png_of(p)),
          seed(5, png_of(9, 11, wide, {.type = PNG_COLOR_TYPE_RGB_ALPHA, .bits = 16, .interlaced = true})),
          seed(6, png_of(9, 11, indexed, {.type = PNG_COLOR_TYPE_PALETTE, .palette = palette}))};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0 || size > 1 << 14) return 0;
  const std::span<const std::byte> file(reinterpret_cast<const std::byte*>(data + 1), size - 1);
  static PictureReader reader;
  static PictureInput input;
  bool small = false;
  outcome_of("header", [&] {
    reader.open(file, "file");
    if (reader.height() < 1 || reader.width() < 1 || reader.orientation() < 1 || reader.orientation() > 8) std::abort();
    small = reader.height() * reader.width() <= kMost;
  });
  if (!small) return 0;
  const uint8_t how = data[0];
  CropRule rule{.kind = static_cast<CropRule::Kind>(how % 4), .size = 8, .filter = how & 4 ? Filter::kBicubic : Filter::kBilinear};
  rule.short_low = 8;
  rule.short_high = 40;
  rule.resize = 10;
  outcome_of("crop", [&] {
    std::array<uint8_t, 8 * 8 * 3> out;
    input.make(file, "file", rule, {.seed = 1, .example = how}, how & 8, {out.data(), 24, 3, 1});
    unsigned sum = 0;
    for (const uint8_t one : out) sum += one;
    if (sum > 255 * out.size()) std::abort();
  });
  // The pixels, of the whole and of a part, are those that libjpeg-turbo alone makes, or there are none of either.
  const int64_t height = reader.height(), width = reader.width();
  const PictureWindow part{.top = height * (how >> 6) / 4,
                           .left = width * (how >> 4 & 3) / 4,
                           .height = (height + 3) / 4,
                           .width = (width + 3) / 4};
  for (const PictureWindow& window : {PictureWindow{.height = height, .width = width}, part}) {
    uint64_t sums[2] = {};
    for (const bool library_alone : {false, true}) {
      outcome_of("pixels", [&] {
        reader.open(file, "file");
        const Patch patch = reader.read(window, how & 4 ? 2 : 1, library_alone);
        uint64_t sum = 1;
        for (int64_t y = 0; y < patch.height; ++y) {
          for (int64_t x = 0; x < patch.width * 3; ++x) sum = sum * 1099511628211u + patch.pixels[y * patch.stride + x];
        }
        sums[library_alone] = sum;
      });
    }
    if (sums[0] != sums[1]) std::abort();
  }
  return 0;
}
