// PNG through libpng: ImageNet has one under the name of a JPEG.
#pragma once
#include <cstddef>
#include <memory>
#include <vector>

#include "jpeg/pictures.h"

namespace lth {

class PngReader {
 public:
  PngReader();
  ~PngReader();

  void open(std::span<const std::byte> bytes, const std::string& name);
  int64_t height() const { return height_; }
  int64_t width() const { return width_; }
  int64_t warnings() const;
  // The whole picture is decoded into `pixels`; the patch is the window of it.
  Patch read(const PictureWindow& window, std::vector<uint8_t>& pixels);

 private:
  struct Library;
  std::unique_ptr<Library> library_;
  int64_t height_ = 0, width_ = 0;
};

}  // namespace lth
