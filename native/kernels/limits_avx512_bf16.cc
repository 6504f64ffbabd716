// Compiled with the flags of AVX-512 and -mavx512bf16; entered only where the CPU has them.
#include <immintrin.h>

#include <cstring>

#include "kernels/layers.h"
#include "kernels/limits.h"

namespace lth {
namespace avx512_bf16 {
namespace {

#include "kernels/vector_avx512.inl"
constexpr int kChains = 24;

#include "kernels/limits.inl"

int64_t bf16_loop(int64_t rounds, const float* in, float* out) {
  const __m512bh factor = _mm512_cvtne2ps_pbh((__m512)splat(in[0]), (__m512)splat(in[0]));
  const __m512bh term = _mm512_cvtne2ps_pbh((__m512)splat(in[1]), (__m512)splat(in[1]));
  __m512 sum[kChains];
  for (int i = 0; i < kChains; ++i) sum[i] = (__m512)splat(in[2]);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 32
    for (int i = 0; i < kChains; ++i) sum[i] = _mm512_dpbf16_ps(sum[i], factor, term);
  }
  vec all[kChains];
  for (int i = 0; i < kChains; ++i) all[i] = (vec)sum[i];
  const vec one = add_up(all);
  std::memcpy(out, &one, sizeof(float));
  return rounds * kChains * kWidth * 4;
}

}  // namespace
extern const LimitLoops kLimits;
const LimitLoops kLimits = {Isa::kAvx512Bf16, fp32_loop, bf16_loop};
}  // namespace avx512_bf16
}  // namespace lth
