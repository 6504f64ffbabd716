#include "data/picture_crop.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "core/error.h"
#include "core/random.h"

namespace lth {
namespace {

constexpr uint32_t kTries = 10;

double uniform(uint32_t word) { return (static_cast<double>(word) + 0.5) * 0x1p-32; }
// One of `choices`: the product's upper half is uniform to 1e-8.
int64_t below(uint32_t word, int64_t choices) {
  return static_cast<int64_t>(word * static_cast<uint64_t>(choices) >> 32);
}

// By + and * alone, so that the bits do not depend on the C library; |x| < 5.
double exponential(double x) {
  double sum = 1;
  for (int k = 40; k >= 1; --k) sum = 1 + sum * x / k;
  return sum;
}

CropBox centred(int64_t height, int64_t width, double tall, double wide) {
  const auto middle = [](int64_t size, double part) { return std::floor((static_cast<double>(size) - part) / 2); };
  return {middle(height, tall), middle(width, wide), tall, wide};
}

PictureCrop random_resized(const CropRule& rule, const Stream& stream, const CropKey& key, int64_t height,
                           int64_t width) {
  const auto h = static_cast<double>(height), w = static_cast<double>(width);
  const double low = logarithm(rule.aspect_low), high = logarithm(rule.aspect_high);
  for (uint32_t attempt = 1; attempt <= kTries; ++attempt) {
    const auto words = stream.words(static_cast<uint64_t>(key.example), key.epoch, attempt);
    const double area = h * w * (rule.area_low + (rule.area_high - rule.area_low) * uniform(words[0]));
    const double aspect = exponential(low + (high - low) * uniform(words[1]));
    const auto wide = static_cast<int64_t>(std::floor(std::sqrt(area * aspect) + 0.5));
    const auto tall = static_cast<int64_t>(std::floor(std::sqrt(area / aspect) + 0.5));
    if (wide < 1 || tall < 1 || wide > width || tall > height) continue;
    const int64_t top = below(words[2], height - tall + 1), left = below(words[3], width - wide + 1);
    return {.box = {static_cast<double>(top), static_cast<double>(left), static_cast<double>(tall), static_cast<double>(wide)},
            .cut = true};
  }
  // The middle, as much of it as the aspect ratios allow.
  double tall = h, wide = w;
  if (w / h < rule.aspect_low) tall = std::clamp(std::floor(w / rule.aspect_low + 0.5), 1.0, h);
  if (w / h > rule.aspect_high) wide = std::clamp(std::floor(h * rule.aspect_high + 0.5), 1.0, w);
  return {.box = centred(height, width, tall, wide), .cut = true};
}

// (height, width) once the short side is `side`; the long one is rounded down as torchvision's Resize does.
std::array<int64_t, 2> scaled(int64_t height, int64_t width, int64_t side) {
  const int64_t longer = std::max(height, width) * side / std::min(height, width);
  return height <= width ? std::array{side, longer} : std::array{longer, side};
}

// The square of `size` at (top, left) of the scaled picture, in pixels of the picture as it is.
CropBox square_of(int64_t height, int64_t width, std::array<int64_t, 2> to, int64_t size, int64_t top, int64_t left) {
  const double y = static_cast<double>(height) / static_cast<double>(to[0]);
  const double x = static_cast<double>(width) / static_cast<double>(to[1]);
  const auto side = static_cast<double>(size);
  CropBox box = {static_cast<double>(top) * y, static_cast<double>(left) * x, side * y, side * x};
  // Not a rounding error past the edge.
  box.height = std::min(box.height, static_cast<double>(height) - box.top);
  box.width = std::min(box.width, static_cast<double>(width) - box.left);
  return box;
}

}  // namespace

void check(const CropRule& rule) {
  const auto expect = [](bool good, const std::string& what) {
    if (!good) throw Error("invalid-argument", "[crop] " + what);
  };
  expect(rule.size >= 1 && rule.size <= 4096, "size: expected 1 to 4096 but received " + std::to_string(rule.size));
  expect(rule.area_low > 0 && rule.area_low <= rule.area_high && rule.area_high <= 1, "area: expected 0 < low <= high <= 1");
  expect(rule.aspect_low >= 0.1 && rule.aspect_low <= rule.aspect_high && rule.aspect_high <= 10,
         "aspect: expected 0.1 <= low <= high <= 10");
  expect(rule.kind != CropRule::kScaledRandom ||
             (rule.size <= rule.short_low && rule.short_low <= rule.short_high && rule.short_high <= 8192),
         "short side: expected size <= low <= high <= 8192");
  expect(rule.kind != CropRule::kCentre || (rule.size <= rule.resize && rule.resize <= 8192),
         "resize: expected size to 8192");
  expect(rule.fraction > 0 && rule.fraction <= 1, "fraction: expected above 0, 1 at most");
}

PictureCrop picture_crop(const CropRule& rule, const CropKey& key, int64_t height, int64_t width) {
  const auto h = static_cast<double>(height), w = static_cast<double>(width);
  if (rule.kind == CropRule::kCentre) {
    const auto to = scaled(height, width, rule.resize);
    // Half a pixel goes to the even side, as Python rounds.
    const auto middle = [&](int64_t size) {
      return static_cast<int64_t>(std::nearbyint(static_cast<double>(size - rule.size) / 2));
    };
    return {.box = square_of(height, width, to, rule.size, middle(to[0]), middle(to[1]))};
  }
  if (rule.kind == CropRule::kCentral) {
    const double top = std::floor((h - h * rule.fraction) / 2), left = std::floor((w - w * rule.fraction) / 2);
    return {.box = {top, left, h - 2 * top, w - 2 * left}, .cut = true};
  }
  const Stream s = stream(key.seed, key.replicate, Purpose::kAugmentation, key.noise);
  const auto words = s.words(static_cast<uint64_t>(key.example), key.epoch, 0);
  PictureCrop crop;
  if (rule.kind == CropRule::kScaledRandom) {
    const auto to = scaled(height, width, rule.short_low + below(words[0], rule.short_high - rule.short_low + 1));
    crop.box = square_of(height, width, to, rule.size, below(words[1], to[0] - rule.size + 1),
                         below(words[3], to[1] - rule.size + 1));
  } else {
    crop = random_resized(rule, s, key, height, width);
  }
  crop.flip = rule.flip && words[2] >> 31 != 0;
  crop.colour = colour_shift(rule.colour, s, key.example, key.epoch);
  return crop;
}

}  // namespace lth
