#include "jpeg/png.h"

#include <png.h>

#include <csetjmp>
#include <cstring>
#include <string>

#include "core/error.h"

namespace lth {

// As in jpeg.cc: errors come by longjmp to `guarded`, which throws.
struct PngReader::Library {
  png_structp decoder = nullptr;
  png_infop info = nullptr;
  std::jmp_buf jump;
  char message[200] = "";
  std::string name;
  std::span<const std::byte> rest;
  int64_t warnings = 0;

  ~Library() { close(); }
  void close() { png_destroy_read_struct(&decoder, &info, nullptr); }

  [[noreturn]] static void fail(png_structp decoder, const char* why) {
    auto& self = *static_cast<Library*>(png_get_error_ptr(decoder));
    std::strncpy(self.message, why, sizeof self.message - 1);
    std::longjmp(self.jump, 1);
  }
  static void note(png_structp decoder, const char*) { ++static_cast<Library*>(png_get_error_ptr(decoder))->warnings; }
  static void take(png_structp decoder, png_bytep to, size_t n) {
    auto& self = *static_cast<Library*>(png_get_io_ptr(decoder));
    if (n > self.rest.size()) png_error(decoder, "truncated");
    std::memcpy(to, self.rest.data(), n);
    self.rest = self.rest.subspan(n);
  }

  template <typename F>
  [[gnu::noinline]] void guarded(F&& f) {
    if (setjmp(jump) != 0) {
      close();
      throw Error("corrupt-file", "[png] " + name + ": " + message);
    }
    f();
  }
};

PngReader::PngReader() : library_(std::make_unique<Library>()) {}
PngReader::~PngReader() = default;
int64_t PngReader::warnings() const { return library_->warnings; }

void PngReader::open(std::span<const std::byte> bytes, const std::string& name) {
  Library& l = *library_;
  l.close();
  l.name = name;
  l.rest = bytes;
  l.warnings = 0;
  l.guarded([&] {
    l.decoder = png_create_read_struct(PNG_LIBPNG_VER_STRING, &l, Library::fail, Library::note);
    if (!l.decoder) std::longjmp(l.jump, 1);
    l.info = png_create_info_struct(l.decoder);
    if (!l.info) png_error(l.decoder, "out of memory");
    png_set_read_fn(l.decoder, &l, Library::take);
    // What a chunk beside the picture unpacks to.
    png_set_chunk_malloc_max(l.decoder, 1 << 20);
    png_read_info(l.decoder, l.info);
    // 8-bit RGB, whatever it was.
    png_set_expand(l.decoder);
    png_set_strip_16(l.decoder);
    png_set_strip_alpha(l.decoder);
    png_set_gray_to_rgb(l.decoder);
    png_set_interlace_handling(l.decoder);
  });
  height_ = png_get_image_height(l.decoder, l.info);
  width_ = png_get_image_width(l.decoder, l.info);
  if (height_ * width_ > kMostPixels) {
    l.close();
    throw Error("unsupported", "[png] " + name + ": has " + std::to_string(width_) + " x " + std::to_string(height_) +
                                   " pixels, expected at most " + std::to_string(kMostPixels) + " in all");
  }
}

Patch PngReader::read(const PictureWindow& window, std::vector<uint8_t>& pixels) {
  Library& l = *library_;
  l.guarded([&] {
    png_read_update_info(l.decoder, l.info);
    if (png_get_rowbytes(l.decoder, l.info) != static_cast<size_t>(width_ * 3)) png_error(l.decoder, "not RGB");
  });
  pixels.resize(std::max(pixels.size(), static_cast<size_t>(height_ * width_ * 3)));
  std::vector<png_bytep> rows(static_cast<size_t>(height_));
  for (int64_t y = 0; y < height_; ++y) rows[y] = pixels.data() + y * width_ * 3;
  png_bytepp all = rows.data();
  l.guarded([&l, all] {
    png_read_image(l.decoder, all);
    png_read_end(l.decoder, nullptr);
  });
  l.close();
  return {.pixels = pixels.data() + (window.top * width_ + window.left) * 3,
          .stride = width_ * 3,
          .height = window.height,
          .width = window.width,
          .top = window.top,
          .left = window.left,
          .shrink = 1};
}

}  // namespace lth
