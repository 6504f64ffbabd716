#include "jpeg/pictures.h"

#include <png.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <vector>

#include <jpeglib.h>

#include "core/error.h"
#include "jpeg/jpeg.h"
#include "jpeg/png.h"

namespace lth {

#define LTH_TEXT_OF(x) #x
#define LTH_TEXT(x) LTH_TEXT_OF(x)

JpegInfo jpeg_info() {
  JpegInfo info;
  info.built = true;
  // Of its headers: the library that is loaded does not tell its version. Its table of messages has libjpeg's (JMSG_VERSION,
  // "6b  27-Mar-1998") and years of copyright. libpng tells the loaded one's.
  const std::string turbo = "libjpeg-turbo " LTH_TEXT(LIBJPEG_TURBO_VERSION);
  info.libraries = turbo + ", libpng " + png_get_libpng_ver(nullptr);
  info.encoder = turbo + ", restart markers every " + std::to_string(JpegEncoder::kRestartPixels) + " pixels";
  return info;
}

struct PictureReader::State {
  JpegReader jpeg;
  PngReader png;
  bool is_png = false;
  std::vector<uint8_t> pixels;
};

PictureReader::PictureReader() : state_(std::make_unique<State>()) {}
PictureReader::~PictureReader() = default;
PictureReader::PictureReader(PictureReader&&) noexcept = default;

void PictureReader::open(std::span<const std::byte> bytes, const std::string& name) {
  State& s = *state_;
  if (s.pixels.size() > kMostKept) std::vector<uint8_t>().swap(s.pixels);
  const auto begins = [&](const char* with, size_t n) {
    return bytes.size() >= n && std::memcmp(bytes.data(), with, n) == 0;
  };
  s.is_png = begins("\x89PNG\r\n\x1a\n", 8);
  if (s.is_png) {
    s.png.open(bytes, name);
  } else if (begins("\xff\xd8", 2)) {
    s.jpeg.open(bytes, name);
  } else {
    throw Error("corrupt-file", "[picture] " + name + ": " +
                                    (bytes.empty() ? "is empty" : "is neither a JPEG nor a PNG file"));
  }
}

int64_t PictureReader::height() const { return state_->is_png ? state_->png.height() : state_->jpeg.height(); }
int64_t PictureReader::width() const { return state_->is_png ? state_->png.width() : state_->jpeg.width(); }
int PictureReader::orientation() const { return state_->is_png ? 1 : state_->jpeg.orientation(); }
bool PictureReader::grey() const { return !state_->is_png && state_->jpeg.grey(); }
int64_t PictureReader::warnings() const { return state_->is_png ? state_->png.warnings() : state_->jpeg.warnings(); }

Patch PictureReader::read(const PictureWindow& window, int shrink, bool library_alone) {
  State& s = *state_;
  if (window.top < 0 || window.left < 0 || window.height < 1 || window.width < 1 ||
      window.height > height() - window.top || window.width > width() - window.left) {
    throw Error("invalid-argument", "[picture] window " + std::to_string(window.height) + " x " +
                                        std::to_string(window.width) + " at (" + std::to_string(window.top) + "," +
                                        std::to_string(window.left) + ") does not fit a picture of " +
                                        std::to_string(height()) + " x " + std::to_string(width()));
  }
  if (shrink != 1 && shrink != 2 && shrink != 4 && shrink != 8) {
    throw Error("invalid-argument", "[picture] shrink: expected 1, 2, 4 or 8 but received " + std::to_string(shrink));
  }
  return s.is_png ? s.png.read(window, s.pixels) : s.jpeg.read(window, shrink, library_alone, s.pixels);
}

}  // namespace lth
