// Compiled with -mavx2 -mfma; entered only where the CPU has them.
#include <immintrin.h>

#include <cstring>

#include "kernels/resize.h"

namespace lth {
namespace avx2 {
namespace {

using ints = __m256i;
constexpr int64_t kLanes = 2;

inline ints load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline void store(void* p, ints v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }
inline ints repeat(int32_t x) { return _mm256_set1_epi32(x); }
inline ints add(ints a, ints b) { return _mm256_add_epi32(a, b); }
inline ints multiply_add(ints a, ints b) { return _mm256_madd_epi16(a, b); }
template <int kBits>
inline ints shifted(ints v) { return _mm256_srai_epi32(v, kBits); }
inline ints low_bytes(ints a, ints b) { return _mm256_unpacklo_epi8(a, b); }
inline ints high_bytes(ints a, ints b) { return _mm256_unpackhi_epi8(a, b); }
inline ints to_words(ints a, ints b) { return _mm256_packs_epi32(a, b); }
inline ints to_bytes(ints a, ints b) { return _mm256_packus_epi16(a, b); }

// Lane i of `low` and lane i of `high` side by side.
inline void store_in_order(int16_t* to, ints low, ints high) {
  store(to, _mm256_permute2x128_si256(low, high, 0x20));
  store(to + 16, _mm256_permute2x128_si256(low, high, 0x31));
}

// r g b R G B . . of the pixels 0 and 4 becomes r R g G b B 0 0 of each.
inline ints colour_pairs(const int16_t* line, const int32_t* first) {
  const auto at = [&](int i) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(line + first[4 * i])); };
  const __m128i order = _mm_setr_epi8(0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11, -1, -1, -1, -1);
  return _mm256_shuffle_epi8(_mm256_inserti128_si256(_mm256_castsi128_si256(at(0)), at(1), 1), _mm256_broadcastsi128_si256(order));
}

#include "kernels/resize.inl"

}  // namespace
extern const ResizeKernels kResize;
const ResizeKernels kResize = {Isa::kAvx2, kLanes, mix_rows, mix_columns, split_planes};
}  // namespace avx2
}  // namespace lth
