// Compiled with -mavx2 -mfma; entered only where the CPU has them.
#include <immintrin.h>

#include <cstring>
#include <limits>

#include "kernels/layers.h"
#include "kernels/sparse.h"

namespace lth {
namespace avx2 {
namespace {

constexpr Isa kIsa = Isa::kAvx2;
#include "kernels/vector_avx2.inl"

#include "kernels/cells.inl"

#include "kernels/pairs.inl"

#include "kernels/transpose_avx.inl"

#include "kernels/turn_avx.inl"

#include "kernels/convolution.inl"

#include "kernels/winograd.inl"

#include "kernels/layers.inl"

#include "kernels/sparse.inl"

}  // namespace
extern const LayerKernels<float> kLayers;
extern const LayerKernels<Bf16> kLayersBf16;
extern const SparseKernels<float> kSparse;
extern const SparseKernels<Bf16> kSparseBf16;
const LayerKernels<float> kLayers = kLayerTable<float>;
const LayerKernels<Bf16> kLayersBf16 = kLayerTable<Bf16>;
const SparseKernels<float> kSparse = kSparseTable<float>;
const SparseKernels<Bf16> kSparseBf16 = kSparseTable<Bf16>;
}  // namespace avx2
}  // namespace lth
