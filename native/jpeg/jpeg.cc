#include "jpeg/jpeg.h"

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <string>

// These want the three above.
#include <jerror.h>
#include <jpeglib.h>

#include "core/error.h"
#include "jpeg/exif.h"
#include "jpeg/huffman.h"

namespace lth {
namespace {

// A progressive file may have any number of scans, each of which costs as much as the whole picture.
constexpr int kMostScans = 500;

// Adobe's CMYK is stored inverted, and Pillow takes every CMYK for Adobe's: R = C K / 255 of the stored values.
uint8_t product(int ink, int key) {
  const int lost = (255 - ink) * key + 128;
  return static_cast<uint8_t>(key - ((lost + (lost >> 8)) >> 8));
}
void cmyk_to_rgb(const uint8_t* from, int64_t width, uint8_t* to) {
  for (int64_t x = 0; x < width; ++x, from += 4, to += 3) {
    for (int c = 0; c < 3; ++c) to[c] = product(from[c], from[3]);
  }
}

}  // namespace

// libjpeg's errors come by longjmp: over frames that hold nothing with a destructor, to `guarded`, which throws.
struct JpegReader::Library {
  jpeg_decompress_struct decoder{};
  jpeg_error_mgr errors{};
  jpeg_progress_mgr progress{};
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX + 1] = "";
  std::string name;
  std::span<const std::byte> bytes;
  std::vector<uint8_t> line;  // of a CMYK picture
  int64_t warnings = 0;
  HuffmanDecoder huffman;

  static Library& of(j_common_ptr any) { return *static_cast<Library*>(any->client_data); }

  [[noreturn]] static void fail(j_common_ptr any) {
    Library& self = of(any);
    any->err->format_message(any, self.message);
    std::longjmp(self.jump, 1);
  }
  static void note(j_common_ptr any, int level) {
    if (level >= 0) return;
    ++of(any).warnings;
    // libjpeg would make up the rest in grey.
    if (any->err->msg_code == JWRN_JPEG_EOF) fail(any);
  }
  static void watch(j_common_ptr any) {
    Library& self = of(any);
    if (self.decoder.input_scan_number <= kMostScans) return;
    std::snprintf(self.message, sizeof self.message, "more than %d scans", kMostScans);
    std::longjmp(self.jump, 1);
  }

  Library() {
    decoder.err = jpeg_std_error(&errors);
    errors.error_exit = fail;
    errors.emit_message = note;
    errors.output_message = [](j_common_ptr) {};
    progress.progress_monitor = watch;
    decoder.client_data = this;
    renew();
  }
  ~Library() { jpeg_destroy_decompress(&decoder); }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  // For each picture: libjpeg keeps tables from one to the next, and a file that lacks some would be decoded with those of
  // whatever picture came before.
  void renew() {
    jpeg_destroy_decompress(&decoder);
    guarded([&] {
      jpeg_create_decompress(&decoder);
      jpeg_save_markers(&decoder, JPEG_APP0 + 1, 0xffff);
    });
    decoder.progress = &progress;
  }

  // f must hold nothing that has a destructor. Not inlined: what lives across setjmp is this frame alone.
  template <typename F>
  [[gnu::noinline]] void guarded(F&& f) {
    if (setjmp(jump) != 0) {
      jpeg_abort_decompress(&decoder);
      throw Error("corrupt-file", "[jpeg] " + name + ": " + message);
    }
    f();
  }

  [[noreturn]] void refuse(const std::string& why, const char* code = "corrupt-file") {
    jpeg_abort_decompress(&decoder);
    throw Error(code, "[jpeg] " + name + ": " + why);
  }

  // Is there an end of the picture behind its header? In its data 0xff 0xd9 stands for nothing else. Looked for from the
  // end, so that whether a file is taken does not depend on how much of it a crop needs.
  bool has_end() const {
    const auto* first = reinterpret_cast<const std::byte*>(decoder.src->next_input_byte);
    for (const std::byte* at = bytes.data() + bytes.size() - 2; at >= first; --at) {
      if (at[0] == std::byte{0xff} && at[1] == std::byte{0xd9}) return true;
    }
    return false;
  }
};

JpegReader::JpegReader() : library_(std::make_unique<Library>()) {}
JpegReader::~JpegReader() = default;

void JpegReader::open(std::span<const std::byte> bytes, const std::string& name) {
  Library& l = *library_;
  l.name = name;
  l.renew();
  l.bytes = bytes;
  l.warnings = 0;
  l.guarded([&] {
    jpeg_mem_src(&l.decoder, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
    jpeg_read_header(&l.decoder, TRUE);
  });
  const auto height = int64_t{l.decoder.image_height}, width = int64_t{l.decoder.image_width};
  if (height * width > kMostPixels) {
    l.refuse("has " + std::to_string(width) + " x " + std::to_string(height) + " pixels, expected at most " +
                 std::to_string(kMostPixels) + " in all",
             "unsupported");
  }
  if (!l.has_end()) l.refuse("truncated: it has no end-of-image marker");
}

int64_t JpegReader::height() const { return library_->decoder.image_height; }
int64_t JpegReader::width() const { return library_->decoder.image_width; }
bool JpegReader::grey() const { return library_->decoder.jpeg_color_space == JCS_GRAYSCALE; }
int64_t JpegReader::warnings() const { return library_->warnings; }

int JpegReader::orientation() const {
  for (jpeg_saved_marker_ptr marker = library_->decoder.marker_list; marker; marker = marker->next) {
    const int found = exif_orientation({marker->data, marker->data_length});
    if (found != 1) return found;
  }
  return 1;
}

Patch JpegReader::read(const PictureWindow& window, int shrink, bool library_alone, std::vector<uint8_t>& pixels) {
  if (!library_alone) {
    try {
      return decode(window, shrink, false, pixels);
    } catch (const Error&) {
      if (!library_->huffman.take_irregular()) throw;
    }
    // What damaged data becomes, and what is said of it, is the library's to say.
    const std::string name = library_->name;
    open(library_->bytes, name);
  }
  return decode(window, shrink, true, pixels);
}

Patch JpegReader::decode(const PictureWindow& window, int shrink, bool library_alone, std::vector<uint8_t>& pixels) {
  Library& l = *library_;
  jpeg_decompress_struct& d = l.decoder;
  const bool cmyk = d.jpeg_color_space == JCS_CMYK || d.jpeg_color_space == JCS_YCCK;
  d.out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
  d.scale_num = 1;
  d.scale_denom = static_cast<unsigned>(shrink);
  // As Pillow has them: its pixels are ours.
  d.dct_method = JDCT_ISLOW;
  d.do_fancy_upsampling = TRUE;
  l.guarded([&] { jpeg_start_decompress(&d); });

  const auto scaled = [&](int64_t end, JDIMENSION most) { return std::min<int64_t>((end + shrink - 1) / shrink, most); };
  Patch patch;
  patch.shrink = shrink;
  patch.top = window.top / shrink;
  patch.left = window.left / shrink;
  patch.height = scaled(window.top + window.height, d.output_height) - patch.top;
  patch.width = scaled(window.left + window.width, d.output_width) - patch.left;

  // Upsampling of chroma looks at neighbours: a margin on each side makes the pixels those of the whole picture.
  constexpr int64_t kMargin = 4;
  const int64_t left = std::max<int64_t>(patch.left - kMargin, 0), top = std::max<int64_t>(patch.top - kMargin, 0);
  JDIMENSION first = static_cast<JDIMENSION>(left);
  auto wide = static_cast<JDIMENSION>(std::min<int64_t>(patch.left + patch.width + kMargin, d.output_width) - left);
  l.guarded([&] {
    if (wide < d.output_width) jpeg_crop_scanline(&d, &first, &wide);  // then begins at a whole block
    if (!library_alone) l.huffman.install(d, first, wide);
    if (top > 0) jpeg_skip_scanlines(&d, static_cast<JDIMENSION>(top));
  });
  const int64_t bytes = int64_t{d.output_width} * 3, lead = (patch.left - first) * 3;
  pixels.resize(std::max(pixels.size(), static_cast<size_t>(bytes * patch.height)));
  if (cmyk) l.line.resize(int64_t{d.output_width} * 4);
  patch.pixels = pixels.data() + lead;
  patch.stride = bytes;

  const int64_t height = patch.height, before = patch.top - top;
  uint8_t* const rows = pixels.data();
  uint8_t* const line = l.line.data();
  l.guarded([&, before, height, bytes, cmyk, rows, line] {
    // Rows of the margin go where the first one will be.
    for (int64_t y = -before; y < height;) {
      uint8_t* to[16];
      const int64_t ready = cmyk || y < 0 ? 1 : std::min<int64_t>({16, d.rec_outbuf_height, height - y});
      for (int64_t i = 0; i < ready; ++i) to[i] = cmyk ? line : rows + std::max<int64_t>(y + i, 0) * bytes;
      const auto got = jpeg_read_scanlines(&d, to, static_cast<JDIMENSION>(ready));
      if (cmyk) cmyk_to_rgb(line, d.output_width, rows + std::max<int64_t>(y, 0) * bytes);
      y += got;
    }
  });
  jpeg_abort_decompress(&d);
  return patch;
}

}  // namespace lth
