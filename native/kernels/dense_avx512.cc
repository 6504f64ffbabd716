// Compiled with -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma; entered only where the CPU has them.
#include <immintrin.h>

#include <cmath>

#include "kernels/layers.h"

namespace lth {
namespace avx512 {
namespace {

constexpr Isa kIsa = Isa::kAvx512;
#include "kernels/vector_avx512.inl"
constexpr int kRows = 6, kVectors = 4;  // 24 accumulators + 4 loads + 1 broadcast of 32 registers

#include "kernels/transpose_avx.inl"

#include "kernels/exponential.inl"

#include "kernels/dense.inl"

}  // namespace
extern const Kernels<float> kDense;
const Kernels<float> kDense = kTable;
}  // namespace avx512
}  // namespace lth
