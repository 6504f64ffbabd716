// Cells of bf16: 32 bits hold two channels of one example, the first one in the lower half. Over `vec` of the including
// file; rounded as vector_*.inl's store does, but for denormals where the CPU has instructions of its own.
typedef uint32_t words __attribute__((vector_size(sizeof(vec))));

inline vec first_of(words w) { return (vec)(w << 16); }
inline vec second_of(words w) { return (vec)(w & 0xffff0000u); }

template <>
struct Cells<Bf16> {
  using data = words;
  static inline words read(const Bf16* p) {
    words w;
    std::memcpy(&w, p, sizeof w);
    return w;
  }
  static inline void write(Bf16* p, words w) { std::memcpy(p, &w, sizeof w); }
  static inline words repeat(const Bf16* p) {
    uint32_t one;
    std::memcpy(&one, p, sizeof one);
    return words{} + one;
  }
#ifdef LTH_AVX512_BF16
  // a sum of two products: denormals count as 0, and it is rounded as the instruction does.
  static inline vec dot(words a, words b, vec sum) { return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b); }
  static inline words pack(const vec (&v)[2]) {
    const __m512bh halves = _mm512_cvtne2ps_pbh((__m512)v[1], (__m512)v[0]);
    const __m512i order = _mm512_set_epi32(0x1f000f, 0x1e000e, 0x1d000d, 0x1c000c, 0x1b000b, 0x1a000a, 0x190009, 0x180008,
                                           0x170007, 0x160006, 0x150005, 0x140004, 0x130003, 0x120002, 0x110001, 0x100000);
    return (words)_mm512_permutexvar_epi16(order, (__m512i)halves);
  }
#else
  static inline vec dot(words a, words b, vec sum) {
    return fma(second_of(a), second_of(b), fma(first_of(a), first_of(b), sum));
  }
  static inline words rounded(vec v) {
    const words bits = (words)v;
    return (v == v) ? bits + 0x7fff + (bits >> 16 & 1) : words{} + 0x7fc00000u;
  }
  static inline words pack(const vec (&v)[2]) { return rounded(v[0]) >> 16 | (rounded(v[1]) & 0xffff0000u); }
#endif
  static inline void unpack(words w, vec (&v)[2]) {
    v[0] = first_of(w);
    v[1] = second_of(w);
  }
};
