// turn_place of bf16: (8 planes, 16 examples, 2) -> (8 pairs of examples, 16 channels, 2) is a transposition of 8 x 8 words
// of 64 bits, two channels of two examples, in each of which the middle two change places.
static void turn_place(const Bf16* in, int64_t plane, int64_t planes, int64_t channels, Bf16* out) {
  const __m512i middle = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
  for (int64_t c = 0; c < channels; c += 16) {
    __m512i r[8], t[8];
    for (int64_t i = 0; i < 8; ++i) {
      const int64_t p = c / 2 + i;
      r[i] = p < planes ? _mm512_shuffle_epi8(_mm512_loadu_si512(in + p * plane), middle) : _mm512_setzero_si512();
    }
    for (int i = 0; i < 8; i += 2) {
      t[i] = _mm512_unpacklo_epi64(r[i], r[i + 1]);      // words 0 2 4 6 of both
      t[i + 1] = _mm512_unpackhi_epi64(r[i], r[i + 1]);  // 1 3 5 7
    }
    // t[0..7]: pairs of planes (01, 23, 45, 67), even and odd words, in 128-bit lanes l: word 2 l or 2 l + 1.
    for (int odd = 0; odd < 2; ++odd) {
      const __m512i a = _mm512_shuffle_i64x2(t[odd], t[2 + odd], 0x88);      // lanes 0 2 of planes 01, 0 2 of 23
      const __m512i b = _mm512_shuffle_i64x2(t[odd], t[2 + odd], 0xdd);      // lanes 1 3
      const __m512i d = _mm512_shuffle_i64x2(t[4 + odd], t[6 + odd], 0x88);
      const __m512i e = _mm512_shuffle_i64x2(t[4 + odd], t[6 + odd], 0xdd);
      r[0 + odd] = _mm512_shuffle_i64x2(a, d, 0x88);  // lane 0
      r[4 + odd] = _mm512_shuffle_i64x2(a, d, 0xdd);  // lane 2
      r[2 + odd] = _mm512_shuffle_i64x2(b, e, 0x88);  // lane 1
      r[6 + odd] = _mm512_shuffle_i64x2(b, e, 0xdd);  // lane 3
    }
    const __mmask16 there = channels - c >= 16 ? 0xffff : static_cast<__mmask16>((1u << (channels - c)) - 1);
    for (int64_t n = 0; n < 8; ++n) _mm512_mask_storeu_epi32(out + (n * channels + c) * 2, there, r[n]);
  }
}

// The two channels of a plane's place.
static inline void split_cell(const Bf16* cell, int64_t apart, Bf16* out) {
  const __m512i both = _mm512_loadu_si512(cell);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_cvtepi32_epi16(both));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + apart), _mm512_cvtepi32_epi16(_mm512_srli_epi32(both, 16)));
}
