// Compiled with the flags of AVX-512 and -mavx512bf16; entered only where the CPU has them. What is not of bf16 are the
// kernels of AVX-512.
#include <immintrin.h>

#include <cstring>
#include <limits>

#include "kernels/layers.h"
#include "kernels/sparse.h"

namespace lth {
namespace avx512_bf16 {
namespace {

constexpr Isa kIsa = Isa::kAvx512Bf16;
#include "kernels/vector_avx512.inl"

#include "kernels/cells.inl"

#define LTH_AVX512_BF16
#include "kernels/pairs.inl"

#include "kernels/turn_avx512.inl"

#include "kernels/convolution.inl"

#include "kernels/winograd.inl"

#include "kernels/layers.inl"

#include "kernels/sparse.inl"

}  // namespace
extern const LayerKernels<Bf16> kLayersBf16;
extern const SparseKernels<Bf16> kSparseBf16;
const LayerKernels<Bf16> kLayersBf16 = kLayerTable<Bf16>;
const SparseKernels<Bf16> kSparseBf16 = kSparseTable<Bf16>;
}  // namespace avx512_bf16
}  // namespace lth
