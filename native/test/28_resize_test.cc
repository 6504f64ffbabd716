// Antialiased resizing against the plain formula in double precision.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>

#include "check.h"
#include "core/random.h"
#include "data/resize.h"

using namespace lth;

namespace {

struct Image {
  int64_t height, width;
  std::vector<uint8_t> pixels;  // (H,W,3)
  Patch patch() const { return {.pixels = pixels.data(), .stride = width * 3, .height = height, .width = width}; }
};

Image noise(int64_t height, int64_t width, uint64_t seed) {
  Image image{height, width, {}};
  const Stream s = stream(seed, 0, Purpose::kMask, 0);
  for (int64_t i = 0; i < height * width * 3; ++i) {
    const auto slope = static_cast<uint32_t>(i / 3 % width * 200 / width);
    image.pixels.push_back(static_cast<uint8_t>(slope + s.words(static_cast<uint64_t>(i), 0, 0)[0] % 56));
  }
  return image;
}

double kernel(Filter filter, double x) {
  x = std::fabs(x);
  if (filter == Filter::kBilinear) return std::max(0.0, 1 - x);
  if (x < 1) return 1.5 * x * x * x - 2.5 * x * x + 1;
  return x < 2 ? -0.5 * x * x * x + 2.5 * x * x - 4 * x + 2 : 0;
}

// Weights of all input pixels for output i.
std::vector<double> weights(int64_t size, double from, double length, int64_t outputs, int64_t i, Filter filter) {
  const double scale = length / static_cast<double>(outputs), wide = std::max(1.0, scale);
  const double reach = (filter == Filter::kBilinear ? 1 : 2) * wide;
  const double centre = from + (static_cast<double>(i) + 0.5) * scale;
  std::vector<double> all(static_cast<size_t>(size));
  double sum = 0;
  for (int64_t k = 0; k < size; ++k) {
    const double middle = static_cast<double>(k) + 0.5;
    if (middle < std::floor(centre - reach + 0.5) || middle > std::floor(centre + reach + 0.5)) continue;
    sum += all[k] = kernel(filter, (middle - centre) / wide);
  }
  for (double& w : all) w /= sum;
  return all;
}

// (h,w,3), rounded to bytes at the end alone.
std::vector<uint8_t> plain(const Image& from, const CropBox& box, Filter filter, int64_t h, int64_t w) {
  std::vector<double> lines(static_cast<size_t>(h * from.width * 3));
  for (int64_t y = 0; y < h; ++y) {
    const auto weight = weights(from.height, box.top, box.height, h, y, filter);
    for (int64_t k = 0; k < from.height; ++k) {
      if (weight[k] == 0) continue;
      for (int64_t i = 0; i < from.width * 3; ++i) lines[y * from.width * 3 + i] += weight[k] * from.pixels[k * from.width * 3 + i];
    }
  }
  std::vector<uint8_t> out(static_cast<size_t>(h * w * 3));
  for (int64_t x = 0; x < w; ++x) {
    const auto weight = weights(from.width, box.left, box.width, w, x, filter);
    for (int64_t y = 0; y < h; ++y) {
      for (int c = 0; c < 3; ++c) {
        double sum = 0;
        for (int64_t k = 0; k < from.width; ++k) sum += weight[k] * lines[(y * from.width + k) * 3 + c];
        out[(y * w + x) * 3 + c] = static_cast<uint8_t>(std::clamp(std::floor(sum + 0.5), 0.0, 255.0));
      }
    }
  }
  return out;
}

std::vector<uint8_t> resized(const Image& from, const CropBox& box, Filter filter, int64_t h, int64_t w) {
  std::vector<uint8_t> out(static_cast<size_t>(h * w * 3));
  Resizer().resize(from.patch(), box, filter, h, w, {out.data(), w * 3, 3, 1});
  return out;
}

}  // namespace

TEST("smaller, larger, cut and whole: the plain formula to one grey level, and nearly always the same") {
  const struct {
    int64_t height, width;
    CropBox box;
    int64_t h, w;
  } cases[] = {
      {60, 90, {0, 0, 60, 90}, 60, 90},          {60, 90, {0, 0, 60, 90}, 32, 32},
      {61, 35, {3, 5, 50, 25}, 48, 40},          {61, 95, {3.25, 5.75, 51.5, 80.125}, 24, 33},
      {7, 9, {0, 0, 7, 9}, 40, 50},              {200, 3, {0, 0, 200, 3}, 2, 5},
      {1, 1, {0, 0, 1, 1}, 4, 4},                {40, 500, {0, 20, 40, 460}, 3, 7},
      {33, 64, {32, 63, 1, 1}, 5, 5},            {50, 50, {10.5, 10.5, 0.25, 0.25}, 6, 6},
      {300, 400, {17, 31, 250, 333}, 224, 224},
  };
  uint64_t seed = 0;
  for (const auto& one : cases) {
    for (const Filter filter : {Filter::kBilinear, Filter::kBicubic}) {
      const Image from = noise(one.height, one.width, ++seed);
      const auto expected = plain(from, one.box, filter, one.h, one.w), got = resized(from, one.box, filter, one.h, one.w);
      int64_t off = 0, worst = 0;
      for (size_t i = 0; i < got.size(); ++i) {
        const int64_t difference = std::abs(got[i] - expected[i]);
        off += difference;
        worst = std::max(worst, difference);
      }
      CHECK(worst <= 1);
      CHECK(static_cast<double>(off) < 0.1 * static_cast<double>(got.size()));
    }
  }
}

TEST("a picture at its own size stays as it is, and a plain one plain") {
  const Image from = noise(37, 51, 9);
  CHECK(resized(from, {0, 0, 37, 51}, Filter::kBilinear, 37, 51) == from.pixels);
  CHECK(resized(from, {0, 0, 37, 51}, Filter::kBicubic, 37, 51) == from.pixels);
  for (const uint8_t level : {uint8_t{0}, uint8_t{1}, uint8_t{127}, uint8_t{255}}) {
    const Image even{300, 2000, std::vector<uint8_t>(300 * 2000 * 3, level)};
    for (const auto [h, w] : {std::array{224, 224}, std::array{1, 1}, std::array{400, 3}}) {
      const auto out = resized(even, {0, 0, 300, 2000}, Filter::kBicubic, h, w);
      CHECK(std::all_of(out.begin(), out.end(), [&](uint8_t x) { return x == level; }));
    }
  }
}

TEST("the output goes where its layout says: planes, mirrored, turned") {
  const Image from = noise(45, 67, 4);
  const int64_t h = 20, w = 31;
  const auto usual = resized(from, {2, 3, 40, 60}, Filter::kBilinear, h, w);
  const auto check = [&](PixelLayout layout, std::vector<uint8_t>& out) {
    Resizer().resize(from.patch(), {2, 3, 40, 60}, Filter::kBilinear, h, w, layout);
    for (int64_t y = 0; y < h; ++y) {
      for (int64_t x = 0; x < w; ++x) {
        for (int c = 0; c < 3; ++c) {
          const uint8_t got = layout.base[y * layout.row + x * layout.column + c * layout.channel];
          CHECK_EQUAL(int{got}, int{usual[(y * w + x) * 3 + c]});
        }
      }
    }
    CHECK_EQUAL(int{out.back()}, 0xee);
  };
  std::vector<uint8_t> out(static_cast<size_t>(h * w * 3 + 1), 0xee);
  check({out.data(), w, 1, h * w}, out);
  check({out.data() + w - 1, w, -1, h * w}, out);
  check({out.data(), 3, h * 3, 1}, out);
  check({out.data() + (h - 1) * w * 3, -w * 3, 3, 1}, out);
}

TEST("no byte outside of a patch is read: what lies around it changes nothing") {
  const Image one = noise(30, 40, 5);
  Image other = one;
  const auto patch_of = [](const Image& image) {
    return Patch{.pixels = image.pixels.data() + (4 * 40 + 6) * 3, .stride = 40 * 3, .height = 21, .width = 27};
  };
  for (int64_t y = 0; y < 30; ++y) {
    for (int64_t x = 0; x < 40; ++x) {
      if (y >= 4 && y < 25 && x >= 6 && x < 33) continue;
      for (int c = 0; c < 3; ++c) other.pixels[(y * 40 + x) * 3 + c] ^= 0xff;
    }
  }
  for (const Filter filter : {Filter::kBilinear, Filter::kBicubic}) {
    std::vector<uint8_t> a(16 * 16 * 3), b(16 * 16 * 3);
    Resizer().resize(patch_of(one), {0, 0, 21, 27}, filter, 16, 16, {a.data(), 48, 3, 1});
    Resizer().resize(patch_of(other), {0, 0, 21, 27}, filter, 16, 16, {b.data(), 48, 3, 1});
    CHECK(a == b);
  }
}

TEST("every instruction set makes the same bits") {
  const Stream random = stream(7, 0, Purpose::kMask, 0);
  const Image large = noise(410, 530, 11);
  std::vector<uint8_t> expected, got;
  for (uint64_t i = 0; i < 400; ++i) {
    const auto a = random.words(i, 0, 0), b = random.words(i, 1, 0), c = random.words(i, 2, 0);
    // Small ones, those of a few pixels and large ones in turn; the patch ends where the picture's rows go on.
    const uint32_t most = i % 3 == 0 ? 9 : i % 3 == 1 ? 80 : 400;
    const int64_t height = 1 + a[0] % most, width = 1 + a[1] % most;
    const Patch patch{.pixels = large.pixels.data() + (a[2] % 10 * 530 + a[3] % 100) * 3, .stride = 530 * 3, .height = height, .width = width};
    const double down = static_cast<double>(height), across = static_cast<double>(width);
    CropBox box{0, 0, down, across};
    if (i % 4 != 0) {
      box.height = std::max(down * (b[0] % 1000) / 1000, 0.1);
      box.width = std::max(across * (b[1] % 1000) / 1000, 0.1);
      box.top = (down - box.height) * (b[2] % 1000) / 1000;
      box.left = (across - box.width) * (b[3] % 1000) / 1000;
    }
    const int64_t h = 1 + c[0] % (i % 5 == 0 ? 3 : 60), w = 1 + c[1] % (i % 7 == 0 ? 3 : 70);
    const Filter filter = c[2] % 2 ? Filter::kBicubic : Filter::kBilinear;
    const auto make = [&](Isa isa, std::vector<uint8_t>& out) {
      out.assign(static_cast<size_t>(h * w * 3 + 1), 0xee);
      uint8_t* base = out.data();
      const PixelLayout layouts[] = {{base, w, 1, h * w},
                                     {base, w * 3, 3, 1},
                                     {base + w - 1, w, -1, h * w},
                                     {base + (w - 1) * 3, w * 3, -3, 1},
                                     {base, 1, h, h * w},
                                     {base + (w - 1) * h * 3, 3, -3 * h, 1}};
      Resizer(isa).resize(patch, box, filter, h, w, layouts[c[3] % 6]);
      CHECK_EQUAL(int{out.back()}, 0xee);
    };
    make(Isa::kPortable, expected);
    for (const Isa isa : {Isa::kAvx2, Isa::kAvx512}) {
      if (!available(isa)) continue;
      make(isa, got);
      if (got != expected) {
        test::complain(__FILE__, __LINE__, std::string(name_of(isa)) + ", case " + std::to_string(i) + ": " + std::to_string(height) + "x" +
                                         std::to_string(width) + " to " + std::to_string(h) + "x" + std::to_string(w));
      }
    }
  }
}

TEST("the bits of a resized picture are frozen") {
  // FNV-1a. What changes them changes every training on pictures in files.
  uint64_t sum = 14695981039346656037u;
  for (const Filter filter : {Filter::kBilinear, Filter::kBicubic}) {
    for (const CropBox box : {CropBox{0, 0, 300, 400}, CropBox{17.5, 31.25, 250.75, 333}, CropBox{40, 50, 60, 70}}) {
      for (const uint8_t byte : resized(noise(300, 400, 13), box, filter, 97, 113)) sum = (sum ^ byte) * 1099511628211u;
    }
  }
  CHECK_EQUAL(sum, uint64_t{15911499876272427940u});
}

TEST("a box that is not in the picture is refused") {
  const Image from = noise(10, 12, 1);
  for (const CropBox box : {CropBox{0, 0, 10.5, 12}, CropBox{-0.5, 0, 4, 4}, CropBox{0, 0, 0, 4}, CropBox{0, 9, 4, 4}, CropBox{0, 0, NAN, 4}}) {
    CHECK_THROWS({ resized(from, box, Filter::kBilinear, 4, 4); }, "invalid-argument", {"box", "10 x 12"});
  }
}
