// Pictures for tests, and files of them.
#pragma once
#include <cmath>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <vector>

#include <jpeglib.h>
#include <png.h>

#include "core/error.h"
#include "core/random.h"

namespace lth::test {

// (height, width, channels) bytes.
struct TestPicture {
  int64_t height = 0, width = 0;
  int channels = 3;
  std::vector<uint8_t> pixels;

  const uint8_t* at(int64_t y, int64_t x) const { return pixels.data() + (y * width + x) * channels; }
};

// Slopes, waves, an edge and some noise, other ones in each channel.
inline TestPicture test_picture(int64_t height, int64_t width, int channels = 3, uint64_t seed = 1) {
  TestPicture p{height, width, channels, {}};
  const Stream noise = stream(seed, 0, Purpose::kMask, 0);
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; ++x) {
      for (int c = 0; c < channels; ++c) {
        const double wave = 60 * std::sin(0.11 * static_cast<double>(x) * (c + 1) + 0.07 * static_cast<double>(y));
        const double slope = 80.0 * static_cast<double>(x * (c == 1 ? -1 : 1) + y) / static_cast<double>(width + height);
        const double edge = (x / 17 + y / 23) % 2 ? 20 : -20;
        const auto grain = static_cast<double>(noise.words(static_cast<uint64_t>((y * width + x) * 4 + c), 0, 0)[0] % 17);
        p.pixels.push_back(static_cast<uint8_t>(std::clamp(120 + wave + slope + edge + grain, 0.0, 255.0)));
      }
    }
  }
  return p;
}

struct JpegKind {
  int across = 2, down = 2;  // sampling of luminance against chrominance
  bool progressive = false, arithmetic = false, optimised = false;  // the last: codes made for this picture
  int restart = 0;   // rows of blocks between markers
  int interval = 0;  // blocks (of all colours) between them
  J_COLOR_SPACE stored = JCS_YCbCr;
  int quality = 90;
  int orientation = 0;  // EXIF's; 0: no EXIF
};

// One channel is grey, four are CMYK (as they are: Adobe's are inverted).
inline std::vector<std::byte> jpeg_of(const TestPicture& p, const JpegKind& kind = {}) {
  jpeg_compress_struct c{};
  jpeg_error_mgr errors{};
  c.err = jpeg_std_error(&errors);  // which ends the program
  jpeg_create_compress(&c);
  unsigned char* memory = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&c, &memory, &size);
  c.image_width = static_cast<JDIMENSION>(p.width);
  c.image_height = static_cast<JDIMENSION>(p.height);
  c.input_components = p.channels;
  c.in_color_space = p.channels == 1 ? JCS_GRAYSCALE : p.channels == 3 ? JCS_RGB : JCS_CMYK;
  jpeg_set_defaults(&c);
  if (p.channels > 1) jpeg_set_colorspace(&c, kind.stored);
  jpeg_set_quality(&c, kind.quality, TRUE);
  if (p.channels == 3) {
    c.comp_info[0].h_samp_factor = kind.across;
    c.comp_info[0].v_samp_factor = kind.down;
  }
  if (kind.progressive) jpeg_simple_progression(&c);
  c.arith_code = kind.arithmetic;
  c.optimize_coding = kind.optimised;
  c.restart_in_rows = kind.restart;
  c.restart_interval = static_cast<unsigned>(kind.interval);
  jpeg_start_compress(&c, TRUE);
  if (kind.orientation > 0) {
    const uint8_t exif[] = {'E', 'x', 'i', 'f', 0, 0, 'M', 'M', 0, 42, 0, 0, 0, 8, 0, 1, 0x01, 0x12, 0, 3,
                            0,   0,   0,   1,   0, static_cast<uint8_t>(kind.orientation), 0, 0, 0, 0, 0, 0};
    jpeg_write_marker(&c, JPEG_APP0 + 1, exif, sizeof exif);
  }
  for (int64_t y = 0; y < p.height; ++y) {
    auto* row = const_cast<uint8_t*>(p.at(y, 0));
    jpeg_write_scanlines(&c, &row, 1);
  }
  jpeg_finish_compress(&c);
  jpeg_destroy_compress(&c);
  const auto* first = reinterpret_cast<const std::byte*>(memory);
  std::vector<std::byte> bytes(first, first + size);
  std::free(memory);
  return bytes;
}

struct PngKind {
  int type = PNG_COLOR_TYPE_RGB, bits = 8;
  bool interlaced = false;
  std::vector<png_color> palette{};
};

// `rows` as PNG has them: packed below 8 bits, big-endian above.
inline std::vector<std::byte> png_of(int64_t height, int64_t width, const std::vector<std::vector<uint8_t>>& rows, const PngKind& kind) {
  std::vector<std::byte> bytes;
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  png_infop info = png_create_info_struct(png);
  png_set_write_fn(
      png, &bytes,
      [](png_structp self, png_bytep data, size_t n) {
        auto& to = *static_cast<std::vector<std::byte>*>(png_get_io_ptr(self));
        to.insert(to.end(), reinterpret_cast<std::byte*>(data), reinterpret_cast<std::byte*>(data) + n);
      },
      nullptr);
  png_set_IHDR(png, info, static_cast<png_uint_32>(width), static_cast<png_uint_32>(height), kind.bits, kind.type,
               kind.interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  if (!kind.palette.empty()) png_set_PLTE(png, info, kind.palette.data(), static_cast<int>(kind.palette.size()));
  png_write_info(png, info);
  std::vector<png_bytep> pointers;
  for (const auto& row : rows) pointers.push_back(const_cast<uint8_t*>(row.data()));
  png_write_image(png, pointers.data());
  png_write_end(png, nullptr);
  png_destroy_write_struct(&png, &info);
  return bytes;
}

inline std::vector<std::byte> png_of(const TestPicture& p) {
  std::vector<std::vector<uint8_t>> rows;
  for (int64_t y = 0; y < p.height; ++y) rows.emplace_back(p.at(y, 0), p.at(y, 0) + p.width * p.channels);
  return png_of(p.height, p.width, rows, {});
}

inline void write_file(const std::string& path, const std::vector<std::byte>& bytes) {
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

}  // namespace lth::test
