// Any CPU. Float and bf16 for users without AVX2, double for the tests that compare executors.
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/layers.h"
#include "kernels/sparse.h"

namespace lth {
namespace portable {
namespace {

constexpr Isa kIsa = Isa::kPortable;

namespace f32 {
#include "kernels/vector_portable_f32.inl"

#include "kernels/cells.inl"

#include "kernels/pairs.inl"

#include "kernels/convolution.inl"

#include "kernels/winograd.inl"

#include "kernels/layers.inl"

#include "kernels/sparse.inl"
}  // namespace f32

namespace f64 {
#include "kernels/vector_portable_f64.inl"

#include "kernels/cells.inl"

#include "kernels/convolution.inl"

#include "kernels/winograd.inl"

#include "kernels/layers.inl"

#include "kernels/sparse.inl"
}  // namespace f64

}  // namespace
extern const LayerKernels<float> kLayers;
extern const LayerKernels<Bf16> kLayersBf16;
extern const LayerKernels<double> kLayers64;
extern const SparseKernels<float> kSparse;
extern const SparseKernels<Bf16> kSparseBf16;
extern const SparseKernels<double> kSparse64;
const LayerKernels<float> kLayers = f32::kLayerTable<float>;
const LayerKernels<Bf16> kLayersBf16 = f32::kLayerTable<Bf16>;
const LayerKernels<double> kLayers64 = f64::kLayerTable<double>;
const SparseKernels<float> kSparse = f32::kSparseTable<float>;
const SparseKernels<Bf16> kSparseBf16 = f32::kSparseTable<Bf16>;
const SparseKernels<double> kSparse64 = f64::kSparseTable<double>;
}  // namespace portable
}  // namespace lth
