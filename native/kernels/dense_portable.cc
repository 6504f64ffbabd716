// Any CPU. Float for users without AVX2, double for the tests that compare executors.
#include <cmath>
#include <cstring>

#include "kernels/layers.h"

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
#include "kernels/vector_portable_f32.inl"
constexpr int kRows = 4, kVectors = 2;
inline void transpose_block(const float* in, int64_t in_row, float* out, int64_t out_row) {
  transpose_plain(in, in_row, out, out_row);
}

#include "kernels/exponential.inl"

#include "kernels/dense.inl"
}  // namespace f32

namespace f64 {
#include "kernels/vector_portable_f64.inl"
constexpr int kRows = 4, kVectors = 2;
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
