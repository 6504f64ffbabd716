#include <cstdlib>
#include <string>

#include "core/error.h"
#include "kernels/layers.h"
#include "kernels/sparse.h"

namespace lth {

#if defined(__x86_64__)
namespace avx2 {
extern const Kernels<float> kDense;
extern const LayerKernels<float> kLayers;
extern const SparseKernels<float> kSparse;
extern const LayerKernels<Bf16> kLayersBf16;
extern const SparseKernels<Bf16> kSparseBf16;
}
namespace avx512 {
extern const Kernels<float> kDense;
extern const LayerKernels<float> kLayers;
extern const SparseKernels<float> kSparse;
extern const LayerKernels<Bf16> kLayersBf16;
extern const SparseKernels<Bf16> kSparseBf16;
}
namespace avx512_bf16 {
extern const LayerKernels<Bf16> kLayersBf16;
extern const SparseKernels<Bf16> kSparseBf16;
}
#endif
namespace portable {
extern const Kernels<float> kDense;
extern const Kernels<double> kDense64;
extern const LayerKernels<float> kLayers;
extern const SparseKernels<float> kSparse;
extern const LayerKernels<Bf16> kLayersBf16;
extern const SparseKernels<Bf16> kSparseBf16;
extern const LayerKernels<double> kLayers64;
extern const SparseKernels<double> kSparse64;
}  // namespace portable

const char* name_of(Isa isa) {
  switch (isa) {
    case Isa::kAvx512Bf16: return "avx512_bf16";
    case Isa::kAvx512: return "avx512";
    case Isa::kAvx2: return "avx2";
    default: return "portable";
  }
}

bool available(Isa isa) {
#if defined(__x86_64__)
  switch (isa) {
    case Isa::kAvx512Bf16: return available(Isa::kAvx512) && __builtin_cpu_supports("avx512bf16");
    case Isa::kAvx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    case Isa::kAvx2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    default: return true;
  }
#else
  return isa == Isa::kPortable;
#endif
}

Isa chosen_isa() {
  constexpr Isa kAll[] = {Isa::kAvx512Bf16, Isa::kAvx512, Isa::kAvx2, Isa::kPortable};
  if (const char* forced = std::getenv("LTH_ISA"); forced && *forced) {
    for (Isa isa : kAll) {
      if (std::string(forced) != name_of(isa)) continue;
      if (!available(isa)) throw Error("unsupported", std::string("[isa] LTH_ISA=") + forced + ": this CPU does not have it");
      return isa;
    }
    throw Error("invalid-argument", std::string("[isa] LTH_ISA=") + forced + ": expected avx512_bf16, avx512, avx2 or portable");
  }
  for (Isa isa : kAll) {
    if (available(isa)) return isa;
  }
  return Isa::kPortable;
}

const Kernels<float>& kernels_f32(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512 || isa == Isa::kAvx512Bf16) return avx512::kDense;
  if (isa == Isa::kAvx2) return avx2::kDense;
#endif
  (void)isa;
  return portable::kDense;
}

const Kernels<double>& kernels_f64() { return portable::kDense64; }

const LayerKernels<float>& layer_kernels(Isa isa, const float*) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512 || isa == Isa::kAvx512Bf16) return avx512::kLayers;
  if (isa == Isa::kAvx2) return avx2::kLayers;
#endif
  (void)isa;
  return portable::kLayers;
}

const LayerKernels<Bf16>& layer_kernels(Isa isa, const Bf16*) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512Bf16) return avx512_bf16::kLayersBf16;
  if (isa == Isa::kAvx512) return avx512::kLayersBf16;
  if (isa == Isa::kAvx2) return avx2::kLayersBf16;
#endif
  (void)isa;
  return portable::kLayersBf16;
}

const LayerKernels<double>& layer_kernels(Isa, const double*) { return portable::kLayers64; }

const SparseKernels<float>& sparse_kernels(Isa isa, const float*) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512 || isa == Isa::kAvx512Bf16) return avx512::kSparse;
  if (isa == Isa::kAvx2) return avx2::kSparse;
#endif
  (void)isa;
  return portable::kSparse;
}

const SparseKernels<Bf16>& sparse_kernels(Isa isa, const Bf16*) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512Bf16) return avx512_bf16::kSparseBf16;
  if (isa == Isa::kAvx512) return avx512::kSparseBf16;
  if (isa == Isa::kAvx2) return avx2::kSparseBf16;
#endif
  (void)isa;
  return portable::kSparseBf16;
}

const SparseKernels<double>& sparse_kernels(Isa, const double*) { return portable::kSparse64; }

}  // namespace lth
