// Compiled with -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma; entered only where the CPU has them.
#include <immintrin.h>

#include <cstring>

#include "kernels/resize.h"

namespace lth {
namespace avx512 {
namespace {

using ints = __m512i;
constexpr int64_t kLanes = 4;

inline ints load(const void* p) { return _mm512_loadu_si512(p); }
inline void store(void* p, ints v) { _mm512_storeu_si512(p, v); }
inline ints repeat(int32_t x) { return _mm512_set1_epi32(x); }
inline ints add(ints a, ints b) { return _mm512_add_epi32(a, b); }
inline ints multiply_add(ints a, ints b) { return _mm512_madd_epi16(a, b); }
template <int kBits>
inline ints shifted(ints v) { return _mm512_srai_epi32(v, kBits); }
inline ints low_bytes(ints a, ints b) { return _mm512_unpacklo_epi8(a, b); }
inline ints high_bytes(ints a, ints b) { return _mm512_unpackhi_epi8(a, b); }
inline ints to_words(ints a, ints b) { return _mm512_packs_epi32(a, b); }
inline ints to_bytes(ints a, ints b) { return _mm512_packus_epi16(a, b); }

// Lane i of `low` and lane i of `high` side by side.
inline void store_in_order(int16_t* to, ints low, ints high) {
  store(to, _mm512_permutex2var_epi64(low, _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), high));
  store(to + 32, _mm512_permutex2var_epi64(low, _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15), high));
}

// r g b R G B . . of the pixels 0, 4, 8 and 12 becomes r R g G b B 0 0 of each.
inline ints colour_pairs(const int16_t* line, const int32_t* first) {
  const auto at = [&](int i) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(line + first[4 * i])); };
  const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(at(0)), at(1), 1);
  const __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(at(2)), at(3), 1);
  const __m128i order = _mm_setr_epi8(0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11, -1, -1, -1, -1);
  return _mm512_shuffle_epi8(_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1), _mm512_broadcast_i32x4(order));
}

#include "kernels/resize.inl"

}  // namespace
extern const ResizeKernels kResize;
const ResizeKernels kResize = {Isa::kAvx512, kLanes, mix_rows, mix_columns, split_planes};
}  // namespace avx512
}  // namespace lth
