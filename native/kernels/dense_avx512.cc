// Compiled with -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma; entered only where the CPU has them.
#include <immintrin.h>

#include <cmath>

#include "kernels/kernels.h"

namespace lth {
namespace avx512 {
namespace {

using real = float;
typedef float vec __attribute__((vector_size(64)));
constexpr Isa kIsa = Isa::kAvx512;
constexpr int64_t kWidth = 16;
constexpr int kRows = 6, kVectors = 4;  // 24 accumulators + 4 loads + 1 broadcast of 32 registers

inline vec load(const float* p) { return (vec)_mm512_loadu_ps(p); }
inline void store(float* p, vec v) { _mm512_storeu_ps(p, (__m512)v); }
inline vec splat(float x) { return (vec)_mm512_set1_ps(x); }
inline vec fma(vec a, vec b, vec c) { return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
inline vec max0(vec v) { return (vec)_mm512_max_ps(_mm512_setzero_ps(), (__m512)v); }  // second operand wins on NaN
inline vec root(vec v) { return (vec)_mm512_sqrt_ps((__m512)v); }
inline vec keep(uint64_t bits, vec v) { return (vec)_mm512_maskz_mov_ps(static_cast<__mmask16>(bits), (__m512)v); }
inline vec widen(const uint8_t* p) {
  return (vec)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
inline vec power_of_two(vec n) {
  const __m512i exponent = _mm512_add_epi32(_mm512_cvtps_epi32((__m512)n), _mm512_set1_epi32(127));
  return (vec)_mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23));
}

#include "kernels/transpose_avx.inl"

#include "kernels/exponential.inl"

#include "kernels/dense.inl"

}  // namespace
extern const Kernels<float> kDense;
const Kernels<float> kDense = kTable;
}  // namespace avx512
}  // namespace lth
