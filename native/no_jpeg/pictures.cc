#include "jpeg/pictures.h"

#include "core/error.h"

namespace lth {

JpegInfo jpeg_info() {
  JpegInfo info;
  info.reason =
      "this addon was built without libjpeg-turbo and libpng: install their headers (Debian: apt install "
      "libjpeg-dev libpng-dev), then run npm rebuild lth-train (in a clone: npm run build:native)";
  return info;
}

struct PictureReader::State {};

PictureReader::PictureReader() { throw Error("unsupported", "[jpeg] " + jpeg_info().reason); }
PictureReader::~PictureReader() = default;
PictureReader::PictureReader(PictureReader&&) noexcept = default;
void PictureReader::open(std::span<const std::byte>, const std::string&) {}
int64_t PictureReader::height() const { return 0; }
int64_t PictureReader::width() const { return 0; }
int PictureReader::orientation() const { return 1; }
bool PictureReader::grey() const { return false; }
Patch PictureReader::read(const PictureWindow&, int, bool) { return {}; }
int64_t PictureReader::warnings() const { return 0; }

struct JpegEncoder::Library {};

JpegEncoder::JpegEncoder() { throw Error("unsupported", "[jpeg] " + jpeg_info().reason); }
JpegEncoder::~JpegEncoder() = default;
std::span<const std::byte> JpegEncoder::encode(const Patch&, bool, int, int, const std::string&) { return {}; }

}  // namespace lth
