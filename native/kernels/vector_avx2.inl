// Vectors of AVX2 and FMA: what the kernels written over `vec` are made of. The including file is compiled for it.
using real = float;
typedef float vec __attribute__((vector_size(32)));
constexpr int64_t kWidth = 8;

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

// The sums of the lanes of eight vectors.
inline void sums_of_lanes(const vec (&v)[8], float* to) {
  __m256 half[8];
  for (int i = 0; i < 8; ++i) half[i] = (__m256)v[i];
  const __m256 a = _mm256_hadd_ps(_mm256_hadd_ps(half[0], half[1]), _mm256_hadd_ps(half[2], half[3]));
  const __m256 b = _mm256_hadd_ps(_mm256_hadd_ps(half[4], half[5]), _mm256_hadd_ps(half[6], half[7]));
  _mm256_storeu_ps(to, _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31)));
}

inline void store(Bf16* p, vec v) {
  const __m256i bits = _mm256_castps_si256((__m256)v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
  const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps((__m256)v, (__m256)v, _CMP_UNORD_Q));
  const __m256i safe = _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc00000), is_nan);
  const __m256i high = _mm256_srli_epi32(safe, 16);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(high, high), 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
}
