// Any CPU, and the choice between the instruction sets' passes.
#include "kernels/resize.h"

#include <algorithm>

namespace lth {
#if defined(__x86_64__)
namespace avx2 {
extern const ResizeKernels kResize;
}
namespace avx512 {
extern const ResizeKernels kResize;
}
#endif
namespace portable {
namespace {

void mix_rows(const RowPair* rows, int64_t pairs, int64_t n, int16_t* to) {
  constexpr int kShift = kWeightBits - kLineBits;
  constexpr int64_t kBlock = 64;  // sums that compilers keep in registers, or nearly
  const auto mix = [&](int64_t i, int64_t size) {
    int32_t sums[kBlock];
    std::fill_n(sums, size, 1 << (kShift - 1));
    for (int64_t p = 0; p < pairs; ++p) {
      const uint8_t *a = rows[p].rows[0] + i, *b = rows[p].rows[1] + i;
      const int32_t u = rows[p].weights[0], v = rows[p].weights[1];
      for (int64_t k = 0; k < size; ++k) sums[k] += u * a[k] + v * b[k];
    }
    for (int64_t k = 0; k < size; ++k) to[i + k] = static_cast<int16_t>(sums[k] >> kShift);
  };
  if (n < kBlock) return mix(0, n);
  for (int64_t i = 0; i < n; i += kBlock) mix(std::min(i, n - kBlock), kBlock);
}

void mix_columns(const int16_t* line, const int32_t* first, const PixelWeights* weights, int64_t pairs, int64_t width,
                 uint32_t* to) {
  constexpr int kShift = kWeightBits + kLineBits;
  for (int64_t x = 0; x < width; ++x) {
    const PixelWeights* w = weights + x * pairs;
    int32_t sums[3] = {1 << (kShift - 1), 1 << (kShift - 1), 1 << (kShift - 1)};
    for (int64_t p = 0; p < pairs; ++p) {
      const int16_t* in = line + first[x] + 6 * p;
      for (int c = 0; c < 3; ++c) sums[c] += w[p].pairs[0] * in[c] + w[p].pairs[1] * in[3 + c];
    }
    to[x] = 0;
    for (int c = 0; c < 3; ++c) to[x] |= static_cast<uint32_t>(std::clamp(sums[c] >> kShift, 0, 255)) << 8 * c;
  }
}

void split_planes(const uint32_t* pixels, int64_t width, uint8_t* red, uint8_t* green, uint8_t* blue) {
  for (int64_t x = 0; x < width; ++x) red[x] = static_cast<uint8_t>(pixels[x]);
  for (int64_t x = 0; x < width; ++x) green[x] = static_cast<uint8_t>(pixels[x] >> 8);
  for (int64_t x = 0; x < width; ++x) blue[x] = static_cast<uint8_t>(pixels[x] >> 16);
}

}  // namespace
extern const ResizeKernels kResize;
const ResizeKernels kResize = {Isa::kPortable, 1, mix_rows, mix_columns, split_planes};
}  // namespace portable

const ResizeKernels& resize_kernels(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512 || isa == Isa::kAvx512Bf16) return avx512::kResize;
  if (isa == Isa::kAvx2) return avx2::kResize;
#endif
  (void)isa;
  return portable::kResize;
}

}  // namespace lth
