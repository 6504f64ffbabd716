// Compiled with -mavx2 -mfma; entered only where the CPU has them.
#include <immintrin.h>

#include <cstring>

#include "kernels/layers.h"
#include "kernels/limits.h"

namespace lth {
namespace avx2 {
namespace {

#include "kernels/vector_avx2.inl"
constexpr int kChains = 12;

#include "kernels/limits.inl"

}  // namespace
extern const LimitLoops kLimits;
const LimitLoops kLimits = {Isa::kAvx2, fp32_loop, nullptr};
}  // namespace avx2
}  // namespace lth
