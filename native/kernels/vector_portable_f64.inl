// Vectors of doubles for any CPU: GCC and Clang lower them to what the target has.
using real = double;
typedef double vec __attribute__((vector_size(16)));
typedef int64_t ints __attribute__((vector_size(16)));
constexpr int64_t kWidth = 2;

inline vec load(const double* p) {
  vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline void store(double* p, vec v) { std::memcpy(p, &v, sizeof v); }
inline vec splat(double x) { return vec{x, x}; }
inline vec fma(vec a, vec b, vec c) { return a * b + c; }
inline vec max0(vec v) { return v < splat(0) ? splat(0) : v; }
inline vec root(vec v) { return vec{std::sqrt(v[0]), std::sqrt(v[1])}; }
inline vec keep(uint64_t bits, vec v) {
  const ints lane = {1, 2};
  const int64_t b = static_cast<int64_t>(bits & 3);
  return (vec)(((ints{b, b} & lane) == lane) & (ints)v);
}
inline vec widen(const uint8_t* p) { return vec{static_cast<double>(p[0]), static_cast<double>(p[1])}; }

// The sums of the lanes of eight vectors.
inline void sums_of_lanes(const vec (&v)[8], double* to) {
  for (int i = 0; i < 8; ++i) to[i] = v[i][0] + v[i][1];
}
