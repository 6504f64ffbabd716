// Compiled with -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma; entered only where the CPU has them.
#include <immintrin.h>

#include <cstring>

#include "kernels/layers.h"
#include "kernels/limits.h"

namespace lth {
namespace avx512 {
namespace {

#include "kernels/vector_avx512.inl"
constexpr int kChains = 24;

#include "kernels/limits.inl"

}  // namespace
extern const LimitLoops kLimits;
const LimitLoops kLimits = {Isa::kAvx512, fp32_loop, nullptr};
}  // namespace avx512
}  // namespace lth
