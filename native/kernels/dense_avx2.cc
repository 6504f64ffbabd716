// Compiled with -mavx2 -mfma; entered only where the CPU has them.
#include <immintrin.h>

#include <cmath>

#include "kernels/kernels.h"

namespace lth {
namespace avx2 {
namespace {

using real = float;
typedef float vec __attribute__((vector_size(32)));
constexpr Isa kIsa = Isa::kAvx2;
constexpr int64_t kWidth = 8;
constexpr int kRows = 6, kVectors = 2;  // 12 accumulators + 2 loads + 1 broadcast of 16 registers

inline vec load(const float* p) { return (vec)_mm256_loadu_ps(p); }
inline void store(float* p, vec v) { _mm256_storeu_ps(p, (__m256)v); }
inline vec splat(float x) { return (vec)_mm256_set1_ps(x); }
inline vec fma(vec a, vec b, vec c) { return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
inline vec max0(vec v) { return (vec)_mm256_max_ps(_mm256_setzero_ps(), (__m256)v); }  // second operand wins on NaN
inline vec root(vec v) { return (vec)_mm256_sqrt_ps((__m256)v); }
inline vec keep(uint64_t bits, vec v) {
  const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const __m256i set = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(static_cast<int>(bits & 255)), lane), lane);
  return (vec)_mm256_and_ps(_mm256_castsi256_ps(set), (__m256)v);
}
inline vec widen(const uint8_t* p) {
  return (vec)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
inline vec power_of_two(vec n) {
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32((__m256)n), _mm256_set1_epi32(127));
  return (vec)_mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
}

#include "kernels/transpose_avx.inl"

#include "kernels/exponential.inl"

#include "kernels/dense.inl"

}  // namespace
extern const Kernels<float> kDense;
const Kernels<float> kDense = kTable;
}  // namespace avx2
}  // namespace lth
