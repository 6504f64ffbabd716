// Vectors of floats for any CPU: GCC and Clang lower them to what the target has.
using real = float;
typedef float vec __attribute__((vector_size(16)));
typedef int32_t ints __attribute__((vector_size(16)));
constexpr int64_t kWidth = 4;

inline vec load(const float* p) {
  vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline void store(float* p, vec v) { std::memcpy(p, &v, sizeof v); }
inline vec splat(float x) { return vec{x, x, x, x}; }
inline vec fma(vec a, vec b, vec c) { return a * b + c; }
inline vec max0(vec v) { return v < splat(0) ? splat(0) : v; }
inline vec root(vec v) { return vec{std::sqrt(v[0]), std::sqrt(v[1]), std::sqrt(v[2]), std::sqrt(v[3])}; }
inline vec keep(uint64_t bits, vec v) {
  const ints lane = {1, 2, 4, 8};
  const int b = static_cast<int>(bits & 15);
  return (vec)(((ints{b, b, b, b} & lane) == lane) & (ints)v);
}
inline vec widen(const uint8_t* p) {
  return vec{static_cast<float>(p[0]), static_cast<float>(p[1]), static_cast<float>(p[2]), static_cast<float>(p[3])};
}
inline vec power_of_two(vec n) {
  const ints exponent = __builtin_convertvector(n, ints) + 127;
  return (vec)(exponent << 23);
}

// The sums of the lanes of eight vectors.
inline void sums_of_lanes(const vec (&v)[8], float* to) {
  for (int i = 0; i < 8; ++i) to[i] = (v[i][0] + v[i][1]) + (v[i][2] + v[i][3]);
}

inline void store(Bf16* p, vec v) {
  typedef uint32_t words __attribute__((vector_size(16)));
  const words bits = (words)v;
  const words rounded = (v == v) ? bits + 0x7fff + (bits >> 16 & 1) : (words{} + 0x7fc00000u);
  for (int x = 0; x < 4; ++x) p[x].bits = static_cast<uint16_t>(rounded[x] >> 16);
}
