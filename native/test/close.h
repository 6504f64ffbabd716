// Values of any storage type, compared in double precision.
#pragma once
#include <bit>
#include <cmath>
#include <string>

#include "check.h"
#include "kernels/layers.h"

namespace lth::test {

inline double value_of(float x) { return static_cast<double>(x); }
inline double value_of(double x) { return x; }
inline double value_of(Bf16 x) { return static_cast<double>(std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16)); }

inline void check_close(double a, double b, double limit, const char* what, const char* file, int line) {
  if (!(std::fabs(a - b) <= limit)) {
    complain(file, line, std::string(what) + ": " + std::to_string(a) + " is not " + std::to_string(b));
  }
}

}  // namespace lth::test

#define CHECK_CLOSE(a, b, limit) lth::test::check_close((a), (b), (limit), #a, __FILE__, __LINE__)
