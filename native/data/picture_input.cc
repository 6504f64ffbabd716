#include "data/picture_input.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace lth {
namespace {

// How a stored picture becomes an upright one, by EXIF's number: which sides of it are counted from their ends, and whether
// rows are columns.
struct Turn {
  bool transposed, from_bottom, from_right;
};
Turn turn_of(int orientation) {
  return {.transposed = orientation >= 5,
          .from_bottom = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7,
          .from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8};
}

// A box of the upright picture in the stored one, which has (height, width).
CropBox stored(CropBox box, Turn turn, double height, double width) {
  if (turn.transposed) {
    std::swap(box.top, box.left);
    std::swap(box.height, box.width);
  }
  if (turn.from_bottom) box.top = height - box.top - box.height;
  if (turn.from_right) box.left = width - box.left - box.width;
  return box;
}

// Where the stored square goes so that the upright one is at `to`.
PixelLayout turned(PixelLayout to, Turn turn, int64_t size, bool flip) {
  if (flip) {
    to.base += (size - 1) * to.column;
    to.column = -to.column;
  }
  if (turn.transposed) std::swap(to.row, to.column);
  if (turn.from_bottom) {
    to.base += (size - 1) * to.row;
    to.row = -to.row;
  }
  if (turn.from_right) {
    to.base += (size - 1) * to.column;
    to.column = -to.column;
  }
  return to;
}

// The most that the inverse transform may take away. It averages over squares, which is sharper than the filter: where twice
// the pixels are left for that, real pictures are within two grey levels of those decoded whole (at 1.5 times 4 % were not).
int shrink_for(const CropBox& box, int64_t size) {
  for (const int shrink : {8, 4, 2}) {
    if (std::min(box.height, box.width) >= static_cast<double>(2 * shrink * size)) return shrink;
  }
  return 1;
}

// [from, from + length) and what the filter reaches beyond, as whole pixels in [0, size). At the end no more than that: rows
// below are not decoded. The beginning decides how places in the patch are rounded and stays as it was, so that bits do.
void reach(double from, double length, const CropRule& rule, bool cut, int shrink, int64_t size, int64_t& first, int64_t& count) {
  const double scale = length / static_cast<double>(rule.size), wide = std::max<double>(shrink, scale);
  const double before = cut ? 0 : 3 * std::max(1.0, scale);
  // The last output's centre is half a step before the end; its filter is cut half a pixel (of the patch) later.
  const double behind = cut ? 0 : filter_reach(rule.filter) * wide - scale / 2 + shrink / 2.0;
  first = std::clamp<int64_t>(static_cast<int64_t>(std::floor(from - before)), 0, size - 1);
  count = std::clamp<int64_t>(static_cast<int64_t>(std::ceil(from + length + behind)), first + 1, size) - first;
}

// `box` inside of a patch, whose edges rounding may have put it over.
void place(double at, double length, int64_t before, double shrink, int64_t size, double& first, double& count) {
  first = std::max(at / shrink - static_cast<double>(before), 0.0);
  count = std::min(length / shrink, static_cast<double>(size) - first);
}

}  // namespace

PictureCrop PictureInput::make(std::span<const std::byte> file, const std::string& name, const CropRule& rule,
                               const CropKey& key, bool upright, PixelLayout to) {
  reader_.open(file, name);
  const int64_t height = reader_.height(), width = reader_.width();
  const Turn turn = turn_of(upright ? reader_.orientation() : 1);
  const PictureCrop crop = turn.transposed ? picture_crop(rule, key, width, height) : picture_crop(rule, key, height, width);
  const CropBox box = stored(crop.box, turn, static_cast<double>(height), static_cast<double>(width));
  const int shrink = shrink_for(box, rule.size);
  PictureWindow window;
  reach(box.top, box.height, rule, crop.cut, shrink, height, window.top, window.height);
  reach(box.left, box.width, rule, crop.cut, shrink, width, window.left, window.width);
  const Patch patch = reader_.read(window, shrink);
  CropBox part;
  place(box.top, box.height, patch.top, patch.shrink, patch.height, part.top, part.height);
  place(box.left, box.width, patch.left, patch.shrink, patch.width, part.left, part.width);
  resizer_.resize(patch, part, rule.filter, rule.size, rule.size, turned(to, turn, rule.size, crop.flip));
  colours_.distort(crop.colour, rule.size, to);
  return crop;
}

Patch PictureInput::decode(std::span<const std::byte> file, const std::string& name, bool library_alone) {
  reader_.open(file, name);
  return reader_.read({.height = reader_.height(), .width = reader_.width()}, 1, library_alone);
}

}  // namespace lth
