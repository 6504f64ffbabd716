// JPEG through libjpeg-turbo.
#pragma once
#include <cstddef>
#include <memory>
#include <vector>

#include "jpeg/pictures.h"

namespace lth {

class JpegReader {
 public:
  JpegReader();
  ~JpegReader();

  void open(std::span<const std::byte> bytes, const std::string& name);
  int64_t height() const;
  int64_t width() const;
  int orientation() const;
  bool grey() const;
  int64_t warnings() const;
  // Into `pixels`, which grows as needed.
  Patch read(const PictureWindow& window, int shrink, bool library_alone, std::vector<uint8_t>& pixels);

 private:
  struct Library;
  Patch decode(const PictureWindow& window, int shrink, bool library_alone, std::vector<uint8_t>& pixels);
  std::unique_ptr<Library> library_;
};

}  // namespace lth
