// The loops that measure what a CPU can do: they make all the operations that they say, and none is optimised away.
#include <cmath>

#include "check.h"
#include "kernels/limits.h"

using namespace lth;

TEST("the loops of every instruction set come to the limit of their chains, and count what they make") {
  for (Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16}) {
    if (!available(isa)) continue;
    const LimitLoops& loops = limit_loops(isa);
    CHECK(loops.isa == isa);
    CHECK((loops.bf16 != nullptr) == (isa == Isa::kAvx512Bf16));
    // sum = sum / 2 + 1 comes to 2; every chain is in the sum of all.
    const float in[3] = {0.5f, 1, 0};
    float out = 0, one = 0;
    const int64_t made = loops.fp32(100, in, &out);
    CHECK_EQUAL(loops.fp32(1, in, &one) * 100, made);
    const float chains = one;  // each is 1 after a round
    CHECK_EQUAL(out, 2 * chains);
    CHECK_EQUAL(made % (2 * 100 * static_cast<int64_t>(chains)), 0);
    if (!loops.bf16) continue;
    // sum += 2 * 0.5 * 1
    CHECK_EQUAL(loops.bf16(1, in, &one) * 100, loops.bf16(100, in, &out));
    CHECK_EQUAL(out, 100 * one);
    CHECK_EQUAL(one, chains);
  }
}
