// Compiled with -mavx2 -mfma; entered only where the CPU has them.
#include <immintrin.h>

#include <cmath>

#include "kernels/layers.h"

namespace lth {
namespace avx2 {
namespace {

constexpr Isa kIsa = Isa::kAvx2;
#include "kernels/vector_avx2.inl"
constexpr int kRows = 6, kVectors = 2;  // 12 accumulators + 2 loads + 1 broadcast of 16 registers

#include "kernels/transpose_avx.inl"

#include "kernels/exponential.inl"

#include "kernels/dense.inl"

}  // namespace
extern const Kernels<float> kDense;
const Kernels<float> kDense = kTable;
}  // namespace avx2
}  // namespace lth
