// Any CPU: GCC and Clang lower the vector types to what the target has. Float for users without AVX2, double for
// the tests that compare executors.
#include <cmath>
#include <cstring>

#include "kernels/kernels.h"

namespace lth {
namespace portable {
namespace {

constexpr Isa kIsa = Isa::kPortable;
constexpr int64_t kBlock = 4;

template <typename T>
inline void transpose_plain(const T* in, int64_t in_row, T* out, int64_t out_row) {
  for (int64_t r = 0; r < kBlock; ++r) {
    for (int64_t c = 0; c < kBlock; ++c) out[c * out_row + r] = in[r * in_row + c];
  }
}

namespace f32 {
using real = float;
typedef float vec __attribute__((vector_size(16)));
typedef int32_t ints __attribute__((vector_size(16)));
constexpr int64_t kWidth = 4;
constexpr int kRows = 4, kVectors = 2;

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
inline void transpose_block(const float* in, int64_t in_row, float* out, int64_t out_row) {
  transpose_plain(in, in_row, out, out_row);
}

#include "kernels/exponential.inl"

#include "kernels/dense.inl"
}  // namespace f32

namespace f64 {
using real = double;
typedef double vec __attribute__((vector_size(16)));
typedef int64_t ints __attribute__((vector_size(16)));
constexpr int64_t kWidth = 2;
constexpr int kRows = 4, kVectors = 2;

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
inline vec exponential(vec x) { return vec{std::exp(x[0]), std::exp(x[1])}; }
inline double logarithm(double x) { return std::log(x); }
inline void transpose_block(const double* in, int64_t in_row, double* out, int64_t out_row) {
  transpose_plain(in, in_row, out, out_row);
}

#include "kernels/dense.inl"
}  // namespace f64

}  // namespace
extern const Kernels<float> kDense;
extern const Kernels<double> kDense64;
const Kernels<float> kDense = f32::kTable;
const Kernels<double> kDense64 = f64::kTable;
}  // namespace portable
}  // namespace lth
