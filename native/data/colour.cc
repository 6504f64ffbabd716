#include "data/colour.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace lth {
namespace {

constexpr uint32_t kWords = 32;  // behind those of crops, which are 0 to 10

double between(double low, double high, uint32_t word) {
  return low + (high - low) * ((static_cast<double>(word) + 0.5) * 0x1p-32);
}

struct Planes {
  float *r, *g, *b;
  int64_t count;
};

float highest(float r, float g, float b) { return std::max(r, std::max(g, b)); }
float lowest(float r, float g, float b) { return std::min(r, std::min(g, b)); }
float clipped(float x) { return std::min(std::max(x, 0.0f), 1.0f); }

void add(float* values, int64_t count, float what) {
  for (int64_t i = 0; i < count; ++i) values[i] += what;
}

// HSV with the saturation times `scale`, 1 at most: hue and value stay, so each channel's distance from the value, which is
// the highest channel, is scaled alike. A value that is not positive has no saturation, and the pixel becomes grey.
void saturate(const Planes& p, float scale) {
  for (int64_t i = 0; i < p.count; ++i) {
    const float r = p.r[i], g = p.g[i], b = p.b[i];
    const float value = highest(r, g, b), range = value - lowest(r, g, b);
    const float by = value > 0 ? std::min(scale, range > 0 ? value / range : scale) : 0.0f;
    p.r[i] = value - (value - r) * by;
    p.g[i] = value - (value - g) * by;
    p.b[i] = value - (value - b) * by;
  }
}

// The hue, in sixths of the circle, plus `turn` in (-6, 6); highest and lowest channel stay.
void turn_hue(const Planes& p, float turn) {
  for (int64_t i = 0; i < p.count; ++i) {
    const float r = p.r[i], g = p.g[i], b = p.b[i];
    const float value = highest(r, g, b), low = lowest(r, g, b), range = value - low;
    const float over = range > 0 ? range : 1.0f;
    const bool red = r == value, green = g == value;
    const float difference = red ? g - b : green ? b - r : r - g;
    float hue = difference / over + (red ? 0.0f : green ? 2.0f : 4.0f) + turn;
    hue = hue < 0 ? hue + 6.0f : hue;
    hue = hue >= 6 ? hue - 6.0f : hue;
    p.r[i] = low + range * clipped(std::fabs(hue - 3) - 1);
    p.g[i] = low + range * clipped(2 - std::fabs(hue - 2));
    p.b[i] = low + range * clipped(2 - std::fabs(hue - 4));
  }
}

void spread(float* values, int64_t count, float scale) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += values[i];
  const auto mean = static_cast<float>(sum / static_cast<double>(count));
  for (int64_t i = 0; i < count; ++i) values[i] = (values[i] - mean) * scale + mean;
}

enum class Step { kBrightness, kSaturation, kHue, kContrast };
constexpr std::array<std::array<Step, 4>, 4> kOrders = {{
    {Step::kBrightness, Step::kSaturation, Step::kHue, Step::kContrast},
    {Step::kSaturation, Step::kBrightness, Step::kContrast, Step::kHue},
    {Step::kContrast, Step::kHue, Step::kBrightness, Step::kSaturation},
    {Step::kHue, Step::kSaturation, Step::kContrast, Step::kBrightness},
}};

}  // namespace

ColourShift colour_shift(Colour kind, const Stream& stream, int64_t example, uint32_t epoch) {
  ColourShift shift{.kind = kind};
  if (kind == Colour::kNone) return shift;
  const auto words = stream.words(static_cast<uint64_t>(example), epoch, kWords);
  shift.brightness = between(-32.0 / 255, 32.0 / 255, words[0]);
  if (kind == Colour::kBrightnessChroma) {
    shift.cb = between(-0.1, 0.1, words[1]);
    shift.cr = between(-0.1, 0.1, words[2]);
    return shift;
  }
  shift.saturation = between(0.5, 1.5, words[1]);
  shift.hue = between(-0.2, 0.2, words[2]);
  shift.contrast = between(0.5, 1.5, words[3]);
  shift.order = static_cast<int>(stream.words(static_cast<uint64_t>(example), epoch, kWords + 1)[0] >> 30);
  return shift;
}

void distort(const ColourShift& shift, float* rgb, int64_t count) {
  const Planes p = {rgb, rgb + count, rgb + 2 * count, count};
  if (shift.kind == Colour::kBrightnessChroma) {
    add(p.r, count, static_cast<float>(shift.brightness + 1.402 * shift.cr));
    add(p.g, count, static_cast<float>(shift.brightness - 0.344136 * shift.cb - 0.714136 * shift.cr));
    add(p.b, count, static_cast<float>(shift.brightness + 1.772 * shift.cb));
  } else if (shift.kind == Colour::kInception) {
    for (const Step step : kOrders[static_cast<size_t>(shift.order)]) {
      switch (step) {
        case Step::kBrightness: add(rgb, 3 * count, static_cast<float>(shift.brightness)); break;
        case Step::kSaturation: saturate(p, static_cast<float>(shift.saturation)); break;
        case Step::kHue: turn_hue(p, static_cast<float>(6 * shift.hue)); break;
        case Step::kContrast:
          for (float* plane : {p.r, p.g, p.b}) spread(plane, count, static_cast<float>(shift.contrast));
          break;
      }
    }
  }
  for (int64_t i = 0; i < 3 * count; ++i) rgb[i] = clipped(rgb[i]);
}

void ColourDistorter::distort(const ColourShift& shift, int64_t size, const PixelLayout& pixels) {
  if (shift.kind == Colour::kNone) return;
  const int64_t count = size * size;
  values_.resize(static_cast<size_t>(3 * count));
  const auto each = [&](auto visit) {
    float* value = values_.data();
    for (int64_t c = 0; c < 3; ++c) {
      for (int64_t y = 0; y < size; ++y) {
        uint8_t* byte = pixels.base + c * pixels.channel + y * pixels.row;
        for (int64_t x = 0; x < size; ++x, ++value, byte += pixels.column) visit(*value, *byte);
      }
    }
  };
  each([](float& value, uint8_t& byte) { value = static_cast<float>(byte) * (1 / 255.0f); });
  lth::distort(shift, values_.data(), count);
  each([](float& value, uint8_t& byte) { byte = static_cast<uint8_t>(value * 255.0f + 0.5f); });
}

}  // namespace lth
