// What this CPU's arithmetic can do at most: loops that multiply and add in registers and touch no memory. Benchmarks compare
// the kernels with it.
#pragma once
#include <cstdint>

#include "kernels/kernels.h"

namespace lth {

struct LimitLoops {
  Isa isa;
  // `rounds` of independent chains of multiply-adds; returns the operations made (a multiply-add is two). `in` holds a
  // factor below 1, a term and a start; `out` gets a number that all chains are part of, so that none is left out.
  int64_t (*fp32)(int64_t rounds, const float* in, float* out);
  // The same of products of bf16 summed in fp32; null where the CPU has no instruction for it.
  int64_t (*bf16)(int64_t rounds, const float* in, float* out);
};

// Of an instruction set that the CPU has.
const LimitLoops& limit_loops(Isa isa);

}  // namespace lth
