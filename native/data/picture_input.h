// A picture file becomes an input of a network: read, cropped, resized, flipped, its colours distorted. Only what the crop needs
// is decoded.
#pragma once
#include <cstddef>
#include <span>
#include <string>

#include "data/picture_crop.h"
#include "jpeg/pictures.h"

namespace lth {

class PictureInput {
 public:
  explicit PictureInput(Isa isa = chosen_isa()) : resizer_(isa) {}
  // `to` takes (size,size,3). `upright`: EXIF's orientation is applied first. Errors are those of PictureReader.
  PictureCrop make(std::span<const std::byte> file, const std::string& name, const CropRule& rule, const CropKey& key,
                   bool upright, PixelLayout to);
  // The whole picture, (height,width,3) as it is stored; the memory is this object's, until its next call.
  Patch decode(std::span<const std::byte> file, const std::string& name, bool library_alone = false);

  int64_t warnings() const { return reader_.warnings(); }

 private:
  PictureReader reader_;
  Resizer resizer_;
  ColourDistorter colours_;
};

}  // namespace lth
