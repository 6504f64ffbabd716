// Distortions of colours: drawn as promised, and slim's formulas in double precision.
#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "check.h"
#include "data/colour.h"
#include "data/picture_crop.h"

using namespace lth;
using namespace lth::test;

namespace {

using Pixel = std::array<double, 3>;

// The textbook's cone (Smith 1978), hue in [0,1): what slim's are defined by.
Pixel hsv_of(const Pixel& p) {
  const double value = std::max({p[0], p[1], p[2]}), range = value - std::min({p[0], p[1], p[2]});
  double hue = 0;
  if (range > 0) {
    if (p[0] == value) hue = (p[1] - p[2]) / range;
    else if (p[1] == value) hue = (p[2] - p[0]) / range + 2;
    else hue = (p[0] - p[1]) / range + 4;
  }
  hue /= 6;
  return {hue - std::floor(hue), value > 0 ? range / value : 0, value};
}
Pixel rgb_of(const Pixel& hsv) {
  const double sixths = hsv[0] * 6, chroma = hsv[1] * hsv[2], low = hsv[2] - chroma;
  const double x = chroma * (1 - std::fabs(std::fmod(sixths, 2) - 1));
  const std::array<Pixel, 6> sectors = {{{chroma, x, 0}, {x, chroma, 0}, {0, chroma, x}, {0, x, chroma}, {x, 0, chroma}, {chroma, 0, x}}};
  Pixel p = sectors[static_cast<size_t>(sixths) % 6];
  for (double& c : p) c += low;
  return p;
}

void brighten(std::vector<Pixel>& picture, double delta) {
  for (Pixel& p : picture) {
    for (double& c : p) c += delta;
  }
}
void saturate(std::vector<Pixel>& picture, double scale) {
  for (Pixel& p : picture) {
    Pixel hsv = hsv_of(p);
    hsv[1] = std::clamp(hsv[1] * scale, 0.0, 1.0);
    p = rgb_of(hsv);
  }
}
// Where the value is not positive a saturation is not defined: highest and lowest channel stay, as TensorFlow's kernel has it.
void turn(std::vector<Pixel>& picture, double delta) {
  for (Pixel& p : picture) {
    const double low = std::min({p[0], p[1], p[2]}), lift = low <= 0 ? 1 - low : 0;
    Pixel hsv = hsv_of({p[0] + lift, p[1] + lift, p[2] + lift});
    hsv[0] += delta;
    hsv[0] -= std::floor(hsv[0]);
    p = rgb_of(hsv);
    for (double& c : p) c -= lift;
  }
}
void spread(std::vector<Pixel>& picture, double scale) {
  for (size_t c = 0; c < 3; ++c) {
    double mean = 0;
    for (const Pixel& p : picture) mean += p[c] / static_cast<double>(picture.size());
    for (Pixel& p : picture) p[c] = (p[c] - mean) * scale + mean;
  }
}

std::vector<Pixel> reference(const ColourShift& s, std::vector<Pixel> picture) {
  if (s.kind == Colour::kBrightnessChroma) {
    for (Pixel& p : picture) {
      p[0] += s.brightness + 1.402 * s.cr;
      p[1] += s.brightness - 0.344136 * s.cb - 0.714136 * s.cr;
      p[2] += s.brightness + 1.772 * s.cb;
    }
  } else {
    for (const char step : std::string(std::array{"bshc", "sbch", "chbs", "hscb"}[static_cast<size_t>(s.order)])) {
      if (step == 'b') brighten(picture, s.brightness);
      if (step == 's') saturate(picture, s.saturation);
      if (step == 'h') turn(picture, s.hue);
      if (step == 'c') spread(picture, s.contrast);
    }
  }
  for (Pixel& p : picture) {
    for (double& c : p) c = std::clamp(c, 0.0, 1.0);
  }
  return picture;
}

// Bytes of all kinds: any, grey, black and white, two channels alike, nearly grey.
std::vector<uint8_t> bytes_of(int64_t count, uint64_t seed) {
  const Stream numbers = stream(seed, 0, Purpose::kSplit, 0);
  std::vector<uint8_t> bytes;
  for (int64_t i = 0; i < count; ++i) {
    const auto w = numbers.words(static_cast<uint64_t>(i), 0, 0);
    std::array<uint8_t, 3> p = {static_cast<uint8_t>(w[0]), static_cast<uint8_t>(w[1]), static_cast<uint8_t>(w[2])};
    switch (w[3] % 6) {
      case 0: p[1] = p[2] = p[0]; break;
      case 1: p = w[3] & 64 ? std::array<uint8_t, 3>{0, 0, 0} : std::array<uint8_t, 3>{255, 255, 255}; break;
      case 2: p[w[3] / 64 % 3] = p[w[3] / 256 % 3]; break;
      case 3: p[1] = static_cast<uint8_t>(p[0] ^ 1); p[2] = p[0]; break;
      default: break;
    }
    bytes.insert(bytes.end(), p.begin(), p.end());
  }
  return bytes;
}

ColourShift drawn(Colour kind, int64_t example) {
  return picture_crop({.colour = kind}, {.seed = 3, .example = example}, 300, 400).colour;
}

}  // namespace

TEST("distortions are frozen: a function of seed, replicate, noise, epoch and example") {
  const CropRule rule{.colour = Colour::kInception};
  const CropKey key{7, 2, 123456789012, 89, 1'281'166};
  const auto numbers = [](const ColourShift& s) {
    return std::array<double, 7>{static_cast<double>(s.order), s.brightness, s.saturation, s.hue, s.contrast, s.cb, s.cr};
  };
  const auto of = [&](CropKey k, Colour colour = Colour::kInception) {
    CropRule r = rule;
    r.colour = colour;
    return numbers(picture_crop(r, k, 375, 500).colour);
  };
  const std::array<double, 7> golden = {1, 0.10106851309537887, 1.1765559831401333, -0.02202525096945465, 1.1255078731337562, 0, 0};
  const std::array<double, 7> chroma = {0, 0.10106851309537887, 1, 0, 1, 0.035311196628026675, -0.011012625484727326};
  CHECK_EQUAL(of(key), golden);
  CHECK_EQUAL(of(key, Colour::kBrightnessChroma), chroma);
  for (const CropKey& other : {CropKey{8, 2, 123456789012, 89, 1'281'166}, CropKey{7, 3, 123456789012, 89, 1'281'166},
                               CropKey{7, 2, 123456789013, 89, 1'281'166}, CropKey{7, 2, 123456789012, 88, 1'281'166},
                               CropKey{7, 2, 123456789012, 89, 1'281'165}})
    CHECK(of(other) != golden);
  CHECK(of(key, Colour::kNone) == numbers(ColourShift{}));
  // The crop is the one without distortion.
  CropRule plain = rule;
  plain.colour = Colour::kNone;
  const PictureCrop a = picture_crop(rule, key, 375, 500), b = picture_crop(plain, key, 375, 500);
  CHECK(a.box.top == b.box.top && a.box.left == b.box.left && a.box.height == b.box.height && a.flip == b.flip);
}

TEST("each number is uniform over its range, and each order comes as often") {
  const int draws = 20000;
  std::array<double, 6> sum{}, low, high;
  low.fill(9);
  high.fill(-9);
  std::array<int, 4> orders{};
  for (int64_t i = 0; i < draws; ++i) {
    const ColourShift s = drawn(Colour::kInception, i), c = drawn(Colour::kBrightnessChroma, i);
    const std::array<double, 6> all = {s.brightness * 255 / 32, (s.saturation - 1) * 2, s.hue * 5, (s.contrast - 1) * 2, c.cb * 10, c.cr * 10};
    for (size_t k = 0; k < 6; ++k) {
      sum[k] += all[k];
      low[k] = std::min(low[k], all[k]);
      high[k] = std::max(high[k], all[k]);
    }
    ++orders.at(static_cast<size_t>(s.order));
  }
  for (size_t k = 0; k < 6; ++k) {
    CHECK(std::fabs(sum[k] / draws) < 0.02);
    CHECK(low[k] > -1 && low[k] < -0.999 && high[k] > 0.999 && high[k] < 1);
  }
  for (const int times : orders) CHECK(std::abs(times - draws / 4) < 300);
}

TEST("distorted colours are those of slim's formulas in double precision, within 2e-6 and within one grey level") {
  const int64_t size = 40, count = size * size;
  double worst = 0;
  int64_t off = 0, all = 0;
  for (const Colour kind : {Colour::kInception, Colour::kBrightnessChroma}) {
    for (int64_t example = 0; example < 200; ++example) {
      const ColourShift shift = drawn(kind, example);
      std::vector<uint8_t> bytes = bytes_of(count, static_cast<uint64_t>(example));
      std::vector<Pixel> picture;
      std::vector<float> planes(static_cast<size_t>(3 * count));
      for (int64_t i = 0; i < count; ++i) {
        Pixel& p = picture.emplace_back();
        for (int64_t c = 0; c < 3; ++c) {
          p[static_cast<size_t>(c)] = bytes[static_cast<size_t>(3 * i + c)] / 255.0;
          planes[static_cast<size_t>(c * count + i)] = static_cast<float>(p[static_cast<size_t>(c)]);
        }
      }
      const std::vector<Pixel> expected = reference(shift, picture);
      distort(shift, planes.data(), count);
      ColourDistorter().distort(shift, size, {bytes.data(), 3 * size, 3, 1});
      for (int64_t i = 0; i < count; ++i) {
        for (int64_t c = 0; c < 3; ++c) {
          const double wanted = expected[static_cast<size_t>(i)][static_cast<size_t>(c)];
          worst = std::max(worst, std::fabs(planes[static_cast<size_t>(c * count + i)] - wanted));
          const int difference = std::abs(bytes[static_cast<size_t>(3 * i + c)] - static_cast<int>(std::floor(wanted * 255 + 0.5)));
          CHECK(difference <= 1);
          off += difference;
          ++all;
        }
      }
    }
  }
  CHECK(worst < 2e-6);
  // Where rounding falls on the other side.
  CHECK(off * 1000 < all);
}

TEST("a grey picture stays grey under slim's, and nothing is what no distortion does") {
  const int64_t size = 8;
  for (int64_t example = 0; example < 50; ++example) {
    std::vector<uint8_t> bytes;
    for (int i = 0; i < size * size; ++i) bytes.insert(bytes.end(), 3, static_cast<uint8_t>(4 * i));
    const std::vector<uint8_t> before = bytes;
    ColourDistorter().distort({}, size, {bytes.data(), 3 * size, 3, 1});
    CHECK(bytes == before);
    ColourShift still{.kind = Colour::kInception, .order = static_cast<int>(example % 4)};
    ColourDistorter().distort(still, size, {bytes.data(), 3 * size, 3, 1});
    CHECK(bytes == before);
    ColourDistorter().distort(drawn(Colour::kInception, example), size, {bytes.data(), 3 * size, 3, 1});
    for (size_t i = 0; i < bytes.size(); i += 3) CHECK(bytes[i] == bytes[i + 1] && bytes[i] == bytes[i + 2]);
  }
}

TEST("planes, pixels and rows that lie the other way give the same bytes") {
  const int64_t size = 9, count = size * size;
  for (const Colour kind : {Colour::kInception, Colour::kBrightnessChroma}) {
    const ColourShift shift = drawn(kind, 5);
    std::vector<uint8_t> pixels = bytes_of(count, 1), planes(pixels.size());
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t c = 0; c < 3; ++c) planes[static_cast<size_t>(c * count + i)] = pixels[static_cast<size_t>(3 * i + c)];
    }
    ColourDistorter distorter;
    distorter.distort(shift, size, {pixels.data(), 3 * size, 3, 1});
    distorter.distort(shift, size, {planes.data(), size, 1, count});
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t c = 0; c < 3; ++c)
        CHECK_EQUAL(planes[static_cast<size_t>(c * count + i)], pixels[static_cast<size_t>(3 * i + c)]);
    }
  }
}
