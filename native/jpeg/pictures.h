// JPEG and PNG pictures, decoded where they are needed. native/jpeg/ implements it over libjpeg-turbo and libpng,
// native/no_jpeg/ says that they were missing when the addon was built.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace lth {

struct JpegInfo {
  bool built = false;
  std::string libraries;  // "libjpeg-turbo 2.1.5, libpng 1.6.39"
  std::string encoder;    // what decides JpegEncoder's bytes: "libjpeg-turbo 2.1.5, restart markers every 64 pixels"
  std::string reason;     // why not, and what to do; empty where built
};
JpegInfo jpeg_info();

// A larger picture is refused before memory is taken for it: 8192 x 8192. The largest of ImageNet has 61 million.
constexpr int64_t kMostPixels = int64_t{1} << 26;

struct PictureWindow {
  int64_t top = 0, left = 0, height = 0, width = 0;
};

// Pixels (H,W,3) in RGB of a part of a picture that was made smaller by `shrink`: pixel (y,x) covers shrink x shrink
// pixels of the file from (shrink (top + y), shrink (left + x)) on. Valid until the reader's next call.
struct Patch {
  const uint8_t* pixels = nullptr;
  int64_t stride = 0;  // bytes from row to row
  int64_t height = 0, width = 0;
  int64_t top = 0, left = 0;
  int shrink = 1;
};

// Reads one picture after another; not for two threads at a time. Every error is Error("corrupt-file") or
// Error("unsupported") and begins with the file's name. Keeps at most kMostKept bytes between pictures.
class PictureReader {
 public:
  static constexpr size_t kMostKept = size_t{16} << 20;

  PictureReader();  // Error("unsupported") where the addon was built without the libraries
  ~PictureReader();
  PictureReader(PictureReader&&) noexcept;

  // Reads the header of a JPEG or PNG file, told by its first bytes. The bytes must stay until `read` is done.
  void open(std::span<const std::byte> bytes, const std::string& name);
  int64_t height() const;  // of the picture as it is stored
  int64_t width() const;
  int orientation() const;  // EXIF's, 1 to 8; 1 where there is none. Before `read`
  bool grey() const;        // a JPEG of one channel

  // Decodes `window`, which lies in the picture and is not empty, once after each `open`. A JPEG is made smaller by `shrink`
  // (1, 2, 4 or 8) in the inverse transform, a PNG is not. Colours become RGB as Pillow's convert("RGB") has them: CMYK
  // is taken for inverted, alpha is dropped; of 16 bits the upper 8 count (of grey too, which Pillow clips at 255).
  // `library_alone`: libjpeg-turbo does all of it, for comparison; the pixels are the same.
  Patch read(const PictureWindow& window, int shrink, bool library_alone = false);
  // What libjpeg and libpng found wrong with the last picture and went over. Of a window, in what had to be decoded for it.
  int64_t warnings() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Writes one baseline JPEG after another, chroma at half the resolution both ways (4:2:0), Huffman tables made for each
// picture, restart markers, by which a reader jumps over what lies outside of its window; not for two threads at a time.
class JpegEncoder {
 public:
  // Along the rows of blocks, from marker to marker: 1.1 % of a picture's bytes. Half of it reads no faster, twice of it slower.
  static constexpr int kRestartPixels = 64;

  JpegEncoder();  // Error("unsupported") where the addon was built without the libraries
  ~JpegEncoder();

  // (H,W,3) in RGB; of a grey one the first channel alone. EXIF tells the orientation where it is not 1, and nothing else.
  // The bytes are this object's, until its next call. Error("unsupported") begins with the name: a side has more than 65500.
  std::span<const std::byte> encode(const Patch& picture, bool grey, int quality, int orientation, const std::string& name);

 private:
  struct Library;
  std::unique_ptr<Library> library_;
};

}  // namespace lth
