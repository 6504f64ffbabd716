// Any CPU, and the choice between the instruction sets' loops.
#include <cmath>
#include <cstring>

#include "kernels/layers.h"
#include "kernels/limits.h"

namespace lth {
#if defined(__x86_64__)
namespace avx2 {
extern const LimitLoops kLimits;
}
namespace avx512 {
extern const LimitLoops kLimits;
}
namespace avx512_bf16 {
extern const LimitLoops kLimits;
}
#endif
namespace portable {
namespace {

#include "kernels/vector_portable_f32.inl"
constexpr int kChains = 12;

#include "kernels/limits.inl"

}  // namespace
extern const LimitLoops kLimits;
const LimitLoops kLimits = {Isa::kPortable, fp32_loop, nullptr};
}  // namespace portable

const LimitLoops& limit_loops(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512Bf16) return avx512_bf16::kLimits;
  if (isa == Isa::kAvx512) return avx512::kLimits;
  if (isa == Isa::kAvx2) return avx2::kLimits;
#endif
  (void)isa;
  return portable::kLimits;
}

}  // namespace lth
