// Vectors of AVX-512 (F, BW, VL, DQ): what the kernels written over `vec` are made of. The including file is compiled for it.
using real = float;
typedef float vec __attribute__((vector_size(64)));
constexpr int64_t kWidth = 16;

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

// The sums of the lanes of eight vectors.
inline void sums_of_lanes(const vec (&v)[8], float* to) {
  __m256 half[8];
  for (int i = 0; i < 8; ++i) {
    half[i] = _mm256_add_ps(_mm512_castps512_ps256((__m512)v[i]), _mm512_extractf32x8_ps((__m512)v[i], 1));
  }
  const __m256 a = _mm256_hadd_ps(_mm256_hadd_ps(half[0], half[1]), _mm256_hadd_ps(half[2], half[3]));
  const __m256 b = _mm256_hadd_ps(_mm256_hadd_ps(half[4], half[5]), _mm256_hadd_ps(half[6], half[7]));
  _mm256_storeu_ps(to, _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31)));
}

// Denormals stay, which AVX512_BF16's own instruction makes 0.
inline void store(Bf16* p, vec v) {
  const __m512i bits = _mm512_castps_si512((__m512)v);
  const __m512i odd = _mm512_and_epi32(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  const __mmask16 is_nan = _mm512_cmp_ps_mask((__m512)v, (__m512)v, _CMP_UNORD_Q);
  const __m512i safe = _mm512_mask_mov_epi32(rounded, is_nan, _mm512_set1_epi32(0x7fc00000));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_srli_epi32(safe, 16)));
}
