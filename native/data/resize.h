// Antialiased resizing as Pillow does it: each pixel is a weighted mean over `support` pixels of the output's size around
// its centre. Whole numbers throughout, so the bits are the same on every machine.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "jpeg/pictures.h"
#include "kernels/resize.h"

namespace lth {

enum class Filter { kBilinear, kBicubic };
// How far from its centre a filter is not 0, in pixels of the output or of the input, whichever are larger.
constexpr double filter_reach(Filter filter) { return filter == Filter::kBilinear ? 1 : 2; }

// In pixels, which are squares: a picture's upper left corner is (0,0), its lower right one (height, width).
struct CropBox {
  double top = 0, left = 0, height = 0, width = 0;
};

// Where element (y,x,c) of a picture goes: base[y * row + x * column + c * channel].
struct PixelLayout {
  uint8_t* base = nullptr;
  ptrdiff_t row = 0, column = 0, channel = 0;
};

class Resizer {
 public:
  explicit Resizer(Isa isa = chosen_isa()) : kernels_(resize_kernels(isa)) {}
  // The part `box` of `from`, in its own pixels, becomes (height, width). Pixels of `from` outside of the box count where the
  // filter reaches them: to cut first and resize then, give the part alone as `from`.
  void resize(const Patch& from, const CropBox& box, Filter filter, int64_t height, int64_t width, const PixelLayout& to);

 private:
  // Output i is the sum over k < taps of weights[i * taps + k] * input[first[i] + k]; weights are in units of 1/2^14.
  struct Axis {
    int64_t taps = 0;  // even
    std::vector<int32_t> first;
    std::vector<int16_t> weights;
  };
  static void plan(Axis& axis, int64_t size, double from, double length, int64_t outputs, Filter filter);

  // The weights of columns_ as the kernels multiply them.
  void spread(int64_t width, int64_t left, bool mirrored);
  // pixels_ become row y of the output.
  void write(int64_t width, const PixelLayout& to, int64_t y) const;

  const ResizeKernels& kernels_;
  Axis rows_, columns_;
  std::vector<int32_t> first_;  // of columns, in the order and the place in which a line has them
  std::vector<PixelWeights> spread_;
  std::vector<RowPair> pairs_;    // of one row of the output
  std::vector<int16_t> line_;     // one row of the output's height, of the input's width
  std::vector<uint32_t> pixels_;  // one row of the output, and what fills the last vectors
};

}  // namespace lth
