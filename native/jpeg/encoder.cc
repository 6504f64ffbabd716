#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <new>
#include <vector>

// These want the ones above.
#include <jerror.h>
#include <jpeglib.h>

#include "core/error.h"
#include "jpeg/pictures.h"

namespace lth {

// As in jpeg.cc: errors come by longjmp to `guarded`, which throws.
struct JpegEncoder::Library {
  jpeg_compress_struct encoder{};
  jpeg_error_mgr errors{};
  jpeg_destination_mgr destination{};
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX + 1] = "";
  std::string name;
  std::vector<std::byte> out;  // as much as was ever needed, of which the file is the beginning
  std::vector<uint8_t> line;   // of a grey picture
  size_t size = 0;             // of the file

  static Library& of(j_common_ptr any) { return *static_cast<Library*>(any->client_data); }
  static Library& of(j_compress_ptr one) { return of(reinterpret_cast<j_common_ptr>(one)); }

  [[noreturn]] static void fail(j_common_ptr any) {
    Library& self = of(any);
    any->err->format_message(any, self.message);
    std::longjmp(self.jump, 1);
  }

  // No exception may pass through libjpeg.
  bool grow(size_t bytes) noexcept {
    try {
      out.resize(bytes);
      return true;
    } catch (const std::bad_alloc&) {
      return false;
    }
  }
  void give(size_t from) {
    destination.next_output_byte = reinterpret_cast<JOCTET*>(out.data() + from);
    destination.free_in_buffer = out.size() - from;
  }
  static void begin(j_compress_ptr c) { of(c).give(0); }
  // libjpeg gives up the whole buffer, whatever it says is free in it.
  static boolean full(j_compress_ptr c) {
    Library& self = of(c);
    const size_t before = self.out.size();
    if (!self.grow(2 * before)) ERREXIT1(c, JERR_OUT_OF_MEMORY, 0);
    self.give(before);
    return TRUE;
  }
  static void end(j_compress_ptr c) { of(c).size = of(c).out.size() - of(c).destination.free_in_buffer; }

  Library() : out(size_t{1} << 16) {
    encoder.err = jpeg_std_error(&errors);
    errors.error_exit = fail;
    errors.emit_message = [](j_common_ptr, int) {};
    errors.output_message = [](j_common_ptr) {};
    encoder.client_data = this;
    guarded([&] { jpeg_create_compress(&encoder); });
    encoder.client_data = this;
    destination.init_destination = begin;
    destination.empty_output_buffer = full;
    destination.term_destination = end;
    encoder.dest = &destination;
  }
  ~Library() { jpeg_destroy_compress(&encoder); }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  template <typename F>
  [[gnu::noinline]] void guarded(F&& f) {
    if (setjmp(jump) != 0) {
      jpeg_abort_compress(&encoder);
      throw Error("unsupported", "[jpeg] " + name + ": cannot be encoded: " + message);
    }
    f();
  }
};

JpegEncoder::JpegEncoder() : library_(std::make_unique<Library>()) {}
JpegEncoder::~JpegEncoder() = default;

std::span<const std::byte> JpegEncoder::encode(const Patch& picture, bool grey, int quality, int orientation,
                                               const std::string& name) {
  Library& l = *library_;
  if (l.out.size() > PictureReader::kMostKept) std::vector<std::byte>(size_t{1} << 16).swap(l.out);
  l.name = name;
  l.line.resize(static_cast<size_t>(picture.width));
  jpeg_compress_struct& c = l.encoder;
  c.image_width = static_cast<JDIMENSION>(picture.width);
  c.image_height = static_cast<JDIMENSION>(picture.height);
  c.input_components = grey ? 1 : 3;
  c.in_color_space = grey ? JCS_GRAYSCALE : JCS_RGB;
  uint8_t* const line = l.line.data();
  l.guarded([&c, &picture, line, grey, quality, orientation] {
    jpeg_set_defaults(&c);
    jpeg_set_quality(&c, quality, TRUE);
    c.dct_method = JDCT_ISLOW;
    c.optimize_coding = TRUE;
    c.restart_interval = static_cast<unsigned>(kRestartPixels / (DCTSIZE * c.comp_info[0].h_samp_factor));
    jpeg_start_compress(&c, TRUE);
    if (orientation != 1) {
      // A big-endian TIFF whose directory has one entry: 0x0112, a short.
      const uint8_t exif[] = {'E', 'x', 'i', 'f', 0, 0, 'M', 'M', 0, 42, 0, 0, 0, 8, 0, 1, 0x01, 0x12, 0, 3, 0,
                              0, 0, 1, 0, static_cast<uint8_t>(orientation), 0, 0, 0, 0, 0, 0};
      jpeg_write_marker(&c, JPEG_APP0 + 1, exif, sizeof exif);
    }
    while (c.next_scanline < c.image_height) {
      const uint8_t* from = picture.pixels + static_cast<int64_t>(c.next_scanline) * picture.stride;
      if (grey) {
        for (int64_t x = 0; x < picture.width; ++x) line[x] = from[3 * x];
      }
      JSAMPROW row = grey ? line : const_cast<uint8_t*>(from);
      jpeg_write_scanlines(&c, &row, 1);
    }
    jpeg_finish_compress(&c);
  });
  return {l.out.data(), l.size};
}

}  // namespace lth
