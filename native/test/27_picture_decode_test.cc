// JPEG and PNG files as RGB: whole, in part, made smaller, and what is refused.
#include <algorithm>
#include <cstdlib>

#include "check.h"
#include "jpeg/exif.h"
#include "jpeg/pictures.h"
#include "pictures.h"

using namespace lth;
using namespace lth::test;

namespace {

TestPicture picture_of(const Patch& patch) {
  TestPicture out{patch.height, patch.width, 3, {}};
  for (int64_t y = 0; y < patch.height; ++y) {
    const uint8_t* row = patch.pixels + y * patch.stride;
    out.pixels.insert(out.pixels.end(), row, row + patch.width * 3);
  }
  return out;
}

TestPicture whole(const std::vector<std::byte>& file, int shrink = 1) {
  PictureReader reader;
  reader.open(file, "whole");
  return picture_of(reader.read({0, 0, reader.height(), reader.width()}, shrink));
}

double mean_difference(const TestPicture& a, const TestPicture& b) {
  double sum = 0;
  for (size_t i = 0; i < a.pixels.size(); ++i) sum += std::abs(a.pixels[i] - b.pixels[i]);
  return sum / static_cast<double>(a.pixels.size());
}

const std::vector<JpegKind> kinds = {{},
                                     {.across = 2, .down = 1},
                                     {.across = 1, .down = 2},
                                     {.across = 1, .down = 1},
                                     {.across = 4, .down = 1},
                                     {.progressive = true},
                                     {.arithmetic = true},
                                     {.restart = 1},
                                     {.interval = 1},
                                     {.across = 2, .down = 1, .interval = 4},
                                     {.across = 1, .down = 1, .optimised = true, .interval = 7},
                                     {.optimised = true},
                                     {.optimised = true, .quality = 100},
                                     {.quality = 3},
                                     {.across = 1, .down = 1, .stored = JCS_RGB}};

// Places of the two bytes of height and width in the first frame header.
size_t frame_header(const std::vector<std::byte>& file) {
  for (size_t i = 2; i + 9 < file.size();) {
    const auto marker = std::to_integer<int>(file[i + 1]);
    if (marker >= 0xc0 && marker <= 0xc2) return i + 5;
    i += 2 + static_cast<size_t>(std::to_integer<int>(file[i + 2]) << 8 | std::to_integer<int>(file[i + 3]));
  }
  return 0;
}

// Places of the restart markers, of which none is before the picture's data.
std::vector<size_t> restart_markers(const std::vector<std::byte>& file) {
  std::vector<size_t> places;
  for (size_t i = 0; i + 1 < file.size(); ++i) {
    const auto marker = std::to_integer<int>(file[i + 1]);
    if (file[i] == std::byte{0xff} && marker >= 0xd0 && marker <= 0xd7) places.push_back(i);
  }
  return places;
}

// Reads windows with our own decoder of codes and with libjpeg-turbo alone. Pixels and errors must be the same; of a part, ours
// may have nothing to warn of where it did not decode what is damaged.
struct Comparison {
  struct Outcome {
    std::vector<uint8_t> pixels;
    int64_t warnings = 0;
    std::string error;
  };
  PictureReader reader;
  int64_t warned = 0, refused = 0, unnoticed = 0;

  Outcome read(const std::vector<std::byte>& file, const PictureWindow& window, int shrink, bool library_alone) {
    Outcome out;
    try {
      reader.open(file, "file");
      out.pixels = picture_of(reader.read(window, shrink, library_alone)).pixels;
      out.warnings = reader.warnings();
    } catch (const Error& error) {
      out.error = error.what();
    }
    return out;
  }
  void operator()(const std::vector<std::byte>& file, const PictureWindow& window, int shrink, const std::string& what) {
    const Outcome own = read(file, window, shrink, false), library = read(file, window, shrink, true);
    const bool part = window.top != 0 || window.left != 0 || window.height != reader.height() || window.width != reader.width();
    const bool missed = part && own.warnings == 0 && library.warnings > 0;
    if (own.pixels != library.pixels || own.error != library.error || (own.warnings != library.warnings && !missed)) {
      complain(__FILE__, __LINE__, what + ": " + std::to_string(own.warnings) + " " + own.error + " and " +
                                       std::to_string(library.warnings) + " " + library.error);
    }
    warned += library.warnings > 0;
    refused += !library.error.empty();
    unnoticed += missed;
  }
};

}  // namespace

TEST("every kind of JPEG becomes the picture that was written") {
  const TestPicture p = test_picture(83, 131);
  for (JpegKind kind : kinds) {
    kind.quality = 95;
    const TestPicture q = whole(jpeg_of(p, kind));
    CHECK_EQUAL(q.height, int64_t{83});
    CHECK_EQUAL(q.width, int64_t{131});
    CHECK(mean_difference(p, q) < 2.5 * std::max(2, kind.across));  // colours are coarser where they are sampled less
  }
}

TEST("a window's pixels are those of the whole picture, at any size") {
  const Stream random = stream(3, 0, Purpose::kMask, 0);
  for (size_t k = 0; k < kinds.size(); ++k) {
    const auto file = jpeg_of(test_picture(150, 203, 3, k), kinds[k]);
    for (const int shrink : {1, 2, 4, 8}) {
      const TestPicture all = whole(file, shrink);
      PictureReader reader;
      for (uint64_t i = 0; i < 60; ++i) {
        const auto words = random.words(i, static_cast<uint32_t>(k), static_cast<uint32_t>(shrink));
        PictureWindow w;
        w.height = 1 + words[0] % 150;
        w.width = 1 + words[1] % 203;
        w.top = words[2] % static_cast<uint32_t>(151 - w.height);
        w.left = words[3] % static_cast<uint32_t>(204 - w.width);
        reader.open(file, "window");
        const Patch patch = reader.read(w, shrink);
        CHECK_EQUAL(patch.shrink, shrink);
        CHECK_EQUAL(patch.top, w.top / shrink);
        CHECK_EQUAL(patch.left, w.left / shrink);
        CHECK_EQUAL(patch.height, (w.top + w.height + shrink - 1) / shrink - w.top / shrink);
        CHECK_EQUAL(patch.width, (w.left + w.width + shrink - 1) / shrink - w.left / shrink);
        bool same = true;
        for (int64_t y = 0; y < patch.height && same; ++y) {
          same = std::equal(patch.pixels + y * patch.stride, patch.pixels + y * patch.stride + patch.width * 3,
                            all.at(patch.top + y, patch.left));
        }
        if (!same) {
          complain(__FILE__, __LINE__, "kind " + std::to_string(k) + " shrink " + std::to_string(shrink) + " window " +
                                           std::to_string(w.top) + "," + std::to_string(w.left) + " " + std::to_string(w.height) +
                                           "x" + std::to_string(w.width));
        }
      }
    }
  }
}

TEST("what is decoded here is what libjpeg-turbo alone makes of it, warnings and errors included, damaged files too") {
  const Stream random = stream(5, 0, Purpose::kMask, 0);
  Comparison compare;
  for (size_t k = 0; k < kinds.size(); ++k) {
    const auto good = jpeg_of(test_picture(90, 110, 3, k), kinds[k]);
    const size_t header = frame_header(good) + 20;
    for (uint64_t i = 0; i < 150; ++i) {
      const auto a = random.words(i, static_cast<uint32_t>(k), 0), b = random.words(i, static_cast<uint32_t>(k), 1);
      auto file = good;
      // None, some, or bytes that make a marker; now and then in the tables before the data.
      for (uint32_t n = 0; n < a[0] % 4; ++n) {
        const size_t from = b[3] % 8 == 0 ? header : file.size() / 4;
        const size_t at = from + (b[n % 4] >> 3) % (file.size() - from - 3);
        file[at] = a[1] % 3 == 0 ? std::byte{0xff} : file[at] ^ static_cast<std::byte>(1 + a[n % 4] % 255);
        if (a[1] % 5 == 0) file[at + 1] = static_cast<std::byte>(a[2] % 2 ? 0xd0 + a[2] % 10 : a[2]);
      }
      PictureWindow window{0, 0, 90, 110};
      if (i % 2) window = {static_cast<int64_t>(b[0] % 40), static_cast<int64_t>(b[1] % 50), 1 + b[2] % 50, 1 + b[3] % 60};
      compare(file, window, 1 << (i % 4), "kind " + std::to_string(k) + " case " + std::to_string(i));
    }
  }
  CHECK(compare.warned > 200);
  CHECK(compare.refused > 20);
}

TEST("windows of files with restart markers, any interval and sampling, grey and CMYK too, are libjpeg-turbo's") {
  const Stream random = stream(6, 0, Purpose::kMask, 0);
  Comparison compare;
  uint64_t i = 0;
  for (const int channels : {1, 3, 4}) {
    for (const auto& [across, down] : {std::pair{2, 2}, std::pair{2, 1}, std::pair{1, 1}, std::pair{1, 2}, std::pair{4, 1}}) {
      if (channels != 3 && down + across != 4) continue;
      // A row of blocks has 8, 14 or 15, 27 to 29, and less or more than it.
      for (const int interval : {1, 2, 3, 4, 5, 7, 8, 14, 15, 28, 29, 30, 100, 65535}) {
        const auto file = jpeg_of(test_picture(131, 227, channels, i), {.across = across,
                                                                        .down = down,
                                                                        .interval = interval,
                                                                        .stored = channels == 4 ? JCS_YCCK : JCS_YCbCr});
        for (int n = 0; n < 12; ++n, ++i) {
          const auto w = random.words(i, 0, 0);
          PictureWindow window{.height = 1 + w[0] % 131, .width = 1 + w[1] % 227};
          if (n % 3) window = {.height = 1 + w[0] % 20, .width = 1 + w[1] % 20};
          window.top = w[2] % static_cast<uint32_t>(132 - window.height);
          window.left = w[3] % static_cast<uint32_t>(228 - window.width);
          compare(file, window, 1 << (n % 4), "channels " + std::to_string(channels) + " interval " + std::to_string(interval) +
                                                  " case " + std::to_string(i));
        }
      }
    }
  }
  CHECK_EQUAL(compare.warned + compare.refused, 0);
}

TEST("restart markers that are lost, doubled, exchanged, filled up, cut off or not markers at all leave libjpeg-turbo's pixels") {
  const Stream random = stream(7, 0, Purpose::kMask, 0);
  Comparison compare;
  for (const int interval : {1, 3, 8, 11}) {
    const auto good = jpeg_of(test_picture(128, 192, 3, 2), {.interval = interval});
    const std::vector<size_t> markers = restart_markers(good);
    CHECK(markers.size() > 7);
    for (uint64_t i = 0; i < 400; ++i) {
      const auto a = random.words(i, static_cast<uint32_t>(interval), 0), b = random.words(i, static_cast<uint32_t>(interval), 1);
      auto file = good;
      const size_t at = markers[a[0] % markers.size()];
      const auto place = [&](size_t n) { return file.begin() + static_cast<std::ptrdiff_t>(n); };
      switch (a[1] % 8) {
        case 0: file.erase(place(at), place(at + 2)); break;
        case 1: file.insert(place(at), good.begin() + static_cast<std::ptrdiff_t>(at), good.begin() + static_cast<std::ptrdiff_t>(at + 2)); break;
        case 2: file[at + 1] = static_cast<std::byte>(0xd0 + a[2] % 8); break;
        case 3: file[at + 1] = static_cast<std::byte>(a[2]); break;
        case 4: file.insert(place(at), 1 + a[2] % 3, std::byte{0xff}); break;
        case 5: file.insert(place(at), 1 + a[2] % 9, static_cast<std::byte>(a[3] % 255)); break;
        case 6: file.erase(place(at), place(markers[std::min(a[0] % markers.size() + a[2] % 12, markers.size() - 1)])); break;
        default:
          file.resize(at + 1 + a[2] % 3);
          file.insert(file.end(), {std::byte{0xff}, std::byte{0xd9}});
      }
      PictureWindow window{0, 0, 128, 192};
      if (i % 4) window = {static_cast<int64_t>(b[0] % 100), static_cast<int64_t>(b[1] % 160), 1 + b[2] % 28, 1 + b[3] % 32};
      compare(file, window, 1 << (i % 3), "interval " + std::to_string(interval) + " case " + std::to_string(i));
    }
  }
  CHECK(compare.warned > 500);
  CHECK(compare.unnoticed > 50);
}

TEST("what lies outside of a window is not decoded where there are restart markers: damage there goes unnoticed") {
  auto file = jpeg_of(test_picture(128, 192), {.interval = 2});
  const std::vector<size_t> markers = restart_markers(file);
  CHECK_EQUAL(markers.size(), size_t{47});  // rows of 12 blocks, 8 of them
  const PictureWindow window{64, 64, 32, 64};
  Comparison compare;
  // Six intervals in a row of blocks. Above the window and its margin all of them, beside it the first and the last one.
  int64_t damaged = 0;
  for (size_t interval = 1; interval < 36; ++interval) {
    if (interval >= 18 && interval % 6 != 0 && interval % 6 != 5) continue;
    for (size_t at = markers[interval - 1] + 2; at < markers[interval]; ++at) file[at] = std::byte{0};
    ++damaged;
    compare(file, window, 1, "interval " + std::to_string(interval));
  }
  CHECK_EQUAL(compare.unnoticed, damaged);
  compare(file, {0, 0, 128, 192}, 1, "whole");
  CHECK_EQUAL(compare.unnoticed, damaged);
}

TEST("a picture made smaller in the transform is the mean over its pixels, nearly") {
  const TestPicture p = test_picture(160, 240);
  const TestPicture full = whole(jpeg_of(p, {.quality = 95}));
  for (const int shrink : {2, 4, 8}) {
    const TestPicture small = whole(jpeg_of(p, {.quality = 95}), shrink);
    TestPicture means{small.height, small.width, 3, {}};
    for (int64_t y = 0; y < small.height; ++y) {
      for (int64_t x = 0; x < small.width * 3; ++x) {
        int sum = 0;
        for (int i = 0; i < shrink * shrink; ++i) sum += full.at(y * shrink + i / shrink, x / 3 * shrink + i % shrink)[x % 3];
        means.pixels.push_back(static_cast<uint8_t>(sum / (shrink * shrink)));
      }
    }
    CHECK(mean_difference(small, means) < 2);
  }
}

TEST("grey becomes three equal channels") {
  const TestPicture p = test_picture(40, 50, 1);
  const TestPicture q = whole(jpeg_of(p, {.quality = 98}));
  double off = 0;
  for (int64_t i = 0; i < 40 * 50; ++i) {
    CHECK(q.pixels[i * 3] == q.pixels[i * 3 + 1] && q.pixels[i * 3] == q.pixels[i * 3 + 2]);
    off += std::abs(q.pixels[i * 3] - p.pixels[i]);
  }
  CHECK(off / (40 * 50) < 3);
}

TEST("CMYK, plain or as YCCK, is taken for inverted: light = ink x key") {
  const TestPicture p = test_picture(48, 64, 4);
  for (const J_COLOR_SPACE stored : {JCS_CMYK, JCS_YCCK}) {
    const TestPicture q = whole(jpeg_of(p, {.stored = stored, .quality = 100}));
    double off = 0;
    for (int64_t i = 0; i < 48 * 64; ++i) {
      for (int c = 0; c < 3; ++c) off += std::abs(q.pixels[i * 3 + c] - p.pixels[i * 4 + c] * p.pixels[i * 4 + 3] / 255.0);
    }
    CHECK(off / (48 * 64 * 3) < 4);
  }
}

TEST("PNG of every type becomes 8-bit RGB, without alpha") {
  const TestPicture p = test_picture(21, 30);
  CHECK(whole(png_of(p)).pixels == p.pixels);
  std::vector<std::vector<uint8_t>> rgba(21), wide(21), grey(21), indexed(21), bits(21);
  std::vector<png_color> palette;
  for (int i = 0; i < 256; ++i) palette.push_back({static_cast<uint8_t>(i), static_cast<uint8_t>(255 - i), static_cast<uint8_t>(i * 7)});
  for (int64_t y = 0; y < 21; ++y) {
    for (int64_t x = 0; x < 30; ++x) {
      const uint8_t* c = p.at(y, x);
      rgba[y].insert(rgba[y].end(), {c[0], c[1], c[2], static_cast<uint8_t>(x * 8)});
      wide[y].insert(wide[y].end(), {c[0], 200, c[1], 100, c[2], 255});
      grey[y].push_back(c[0]);
      indexed[y].push_back(c[1]);
      if (x % 8 == 0) bits[y].push_back(c[2]);
    }
  }
  const auto read = [](const std::vector<std::vector<uint8_t>>& rows, const PngKind& kind) { return whole(png_of(21, 30, rows, kind)); };
  CHECK(read(rgba, {.type = PNG_COLOR_TYPE_RGB_ALPHA}).pixels == p.pixels);
  CHECK(read(rgba, {.type = PNG_COLOR_TYPE_RGB_ALPHA, .interlaced = true}).pixels == p.pixels);
  CHECK(read(wide, {.bits = 16}).pixels == p.pixels);
  const TestPicture g = read(grey, {.type = PNG_COLOR_TYPE_GRAY}), i = read(indexed, {.type = PNG_COLOR_TYPE_PALETTE, .palette = palette}),
                    b = read(bits, {.type = PNG_COLOR_TYPE_GRAY, .bits = 1});
  for (int64_t y = 0; y < 21; ++y) {
    for (int64_t x = 0; x < 30; ++x) {
      const uint8_t one = p.at(y, x)[0], index = p.at(y, x)[1];
      const uint8_t bit = bits[y][x / 8] >> (7 - x % 8) & 1 ? 255 : 0;
      CHECK(g.at(y, x)[0] == one && g.at(y, x)[1] == one && g.at(y, x)[2] == one);
      CHECK(i.at(y, x)[0] == index && i.at(y, x)[1] == 255 - index && i.at(y, x)[2] == static_cast<uint8_t>(index * 7));
      CHECK(b.at(y, x)[0] == bit && b.at(y, x)[2] == bit);
    }
  }
}

TEST("a window of a PNG is that part of it") {
  const TestPicture p = test_picture(33, 44);
  const auto file = png_of(p);
  PictureReader reader;
  reader.open(file, "part");
  const Patch patch = reader.read({5, 7, 20, 30}, 2);
  CHECK_EQUAL(patch.shrink, 1);
  CHECK_EQUAL(patch.height, 20);
  CHECK_EQUAL(patch.width, 30);
  for (int64_t y = 0; y < 20; ++y) CHECK(std::equal(p.at(5 + y, 7), p.at(5 + y, 37), patch.pixels + y * patch.stride));
}

TEST("EXIF's orientation is read, and only where it is one") {
  const TestPicture p = test_picture(16, 24);
  for (int orientation = 0; orientation <= 9; ++orientation) {
    PictureReader reader;
    const auto file = jpeg_of(p, {.orientation = orientation});
    reader.open(file, "exif");
    CHECK_EQUAL(reader.orientation(), orientation >= 1 && orientation <= 8 ? orientation : 1);
  }
  const std::vector<uint8_t> little = {'E', 'x', 'i', 'f', 0, 0, 'I', 'I', 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 0x01, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0};
  CHECK_EQUAL(exif_orientation(little), 6);
  for (size_t n = 0; n < little.size(); ++n) {
    const int found = exif_orientation(std::span(little).first(n));
    CHECK(found == 1);
  }
}

TEST("what is no whole picture is refused, by name") {
  const auto file = jpeg_of(test_picture(120, 90));
  PictureReader reader;
  const auto read = [&](std::span<const std::byte> bytes, const std::string& name) {
    reader.open(bytes, name);
    reader.read({0, 0, reader.height(), reader.width()}, 1);
  };
  CHECK_THROWS({ read({}, "no-bytes.JPEG"); }, "corrupt-file", {"no-bytes.JPEG", "empty"});
  const std::vector<std::byte> text(50, std::byte{'x'});
  CHECK_THROWS({ read(text, "text.JPEG"); }, "corrupt-file", {"text.JPEG", "neither a JPEG nor a PNG"});
  for (const size_t n : {size_t{2}, size_t{3}, size_t{100}, file.size() / 2, file.size() - 1}) {
    CHECK_THROWS({ read(std::span(file).first(n), "short.JPEG"); }, "corrupt-file", {"short.JPEG"});
  }
  CHECK_THROWS({ read(std::span(file).first(file.size() / 2), "half.JPEG"); }, "corrupt-file", {"half.JPEG", "truncated"});
  const auto png = png_of(test_picture(50, 50));
  for (const size_t n : {size_t{8}, size_t{30}, png.size() / 2}) {
    CHECK_THROWS({ read(std::span(png).first(n), "short.png"); }, "corrupt-file", {"short.png"});
  }
  read(file, "good");  // the reader goes on after errors
  CHECK_EQUAL(reader.warnings(), 0);
}

TEST("a file that lacks its tables is not decoded with those of the picture before it") {
  const auto good = jpeg_of(test_picture(40, 40));
  const auto without = [&](int segment) {
    auto file = good;
    for (size_t i = 2; std::to_integer<int>(file[i + 1]) != 0xda;) {
      const size_t bytes = 2 + static_cast<size_t>(std::to_integer<int>(file[i + 2]) << 8 | std::to_integer<int>(file[i + 3]));
      const auto place = file.begin() + static_cast<std::ptrdiff_t>(i);
      if (std::to_integer<int>(file[i + 1]) == segment) file.erase(place, place + static_cast<std::ptrdiff_t>(bytes));
      else i += bytes;
    }
    return file;
  };
  PictureReader used;
  const auto read = [&](PictureReader& reader, const std::vector<std::byte>& file) {
    reader.open(file, "file");
    return picture_of(reader.read({0, 0, 40, 40}, 1)).pixels;
  };
  read(used, good);
  CHECK_THROWS({ read(used, without(0xdb)); }, "corrupt-file", {"file", "Quantization table"});
  // Codes that are missing are the standard's, as in the frames of a film.
  read(used, jpeg_of(test_picture(40, 40, 3, 2), {.optimised = true}));
  PictureReader fresh;
  CHECK(read(used, without(0xc4)) == read(fresh, without(0xc4)));
}

TEST("20,000 x 20,000 pixels are refused before memory is taken for them") {
  PictureReader reader;
  auto file = jpeg_of(test_picture(16, 16));
  const size_t at = frame_header(file);
  for (const size_t i : {at, at + 2}) {
    file[i] = std::byte{20000 >> 8};
    file[i + 1] = std::byte{20000 & 255};
  }
  CHECK_THROWS({ reader.open(file, "bomb.JPEG"); }, "unsupported", {"bomb.JPEG", "20000 x 20000", "67108864"});
}

TEST("data that is wrong inside gives a warning and a picture") {
  auto file = jpeg_of(test_picture(120, 160), {.restart = 1});
  // The third restart marker in the place of the second.
  for (size_t i = 0; i + 1 < file.size(); ++i) {
    if (file[i] == std::byte{0xff} && file[i + 1] == std::byte{0xd1}) file[i + 1] = std::byte{0xd2};
  }
  PictureReader reader;
  reader.open(file, "scratched");
  reader.read({0, 0, 120, 160}, 1);
  CHECK(reader.warnings() > 0);
}

TEST("a window outside of the picture is refused") {
  const auto file = jpeg_of(test_picture(16, 24));
  PictureReader reader;
  for (const PictureWindow w : {PictureWindow{0, 0, 17, 24}, PictureWindow{0, 1, 16, 24}, PictureWindow{-1, 0, 4, 4}, PictureWindow{0, 0, 0, 4}}) {
    reader.open(file, "outside");
    CHECK_THROWS({ reader.read(w, 1); }, "invalid-argument", {"does not fit", "16 x 24"});
  }
  CHECK_THROWS({ reader.read({0, 0, 4, 4}, 3); }, "invalid-argument", {"shrink"});
}
