// The kernels of the direct executor on the CPU, one table per instruction set, chosen at run time.
//
// Legend: N batch, C features in, K features out, L lanes (N rounded up to kLane; the batch is innermost).
// Activations are (features, L): one vector register holds the same feature of many examples, so that a product
// needs neither packing nor horizontal sums, and a sparse weight can skip its whole column (issue of the sparse
// engine). Lanes beyond N hold zeros in every gradient.
//
// Every output element is summed in one fixed order that does not depend on how rows and columns are cut into
// tasks, so the number of threads never changes a bit.
#pragma once
#include <cstdint>

namespace lth {

// Internal linkage: this header is included by files compiled for other instruction sets.
constexpr int64_t kLane = 16;
// Raised by whatever changes bits: everywhere, or of networks with convolutions.
constexpr int kKernelsVersion = 3, kConvolutionsVersion = 4;
static constexpr int64_t padded(int64_t n, int64_t to = kLane) { return (n + to - 1) / to * to; }

enum class Isa { kPortable, kAvx2, kAvx512, kAvx512Bf16 };
const char* name_of(Isa isa);
bool available(Isa isa);
// The best the CPU has, or what LTH_ISA (avx512_bf16, avx512, avx2, portable) asks for; an unknown or missing one throws.
Isa chosen_isa();

// out(M, J) = a(M, I) b(I, J) for rows [m0, m1) and columns [j0, j1); j0 is a multiple of kLane, and so is j1
// unless it is the last. a(m, i) = a[m * a_row + i * a_step] is broadcast; b(i, j) = b[i * b_row + j] is read in
// whole vectors, so rows of b are padded to kLane.
template <typename T>
struct Product {
  const T* a;
  int64_t a_row, a_step;
  const T* b;
  int64_t b_row;
  int64_t inner;  // I
  T* out;
  int64_t out_row;
  const T* bias;    // per row of out, or null
  bool relu;        // out = max(out, 0); NaN stays NaN
  bool accumulate;  // out += instead of out =
};

template <typename T>
struct SgdStep {
  T learning_rate, momentum, weight_decay;
  bool nesterov;
};

template <typename T>
struct AdamStep {
  // step_size = rate / (1 - beta1^t); root = sqrt(1 - beta2^t) (Kingma & Ba; grouping as in PyTorch). one_beta is
  // 1 - beta rounded once: a float's 1 - 0.999f is off by 1.3e-5.
  T step_size, one_beta1, beta2, one_beta2, epsilon, weight_decay, root;
};

template <typename T>
struct RmsPropStep {
  // epsilon is under the root; one_decay is 1 - decay rounded once.
  T rate, momentum, decay, one_decay, epsilon, weight_decay;
};

template <typename T>
struct Kernels {
  Isa isa;
  void (*product)(const Product<T>&, int64_t m0, int64_t m1, int64_t j0, int64_t j1);
  // out(c, r) = in(r, c) for r < rows, c < columns.
  void (*transpose)(const T* in, int64_t in_row, T* out, int64_t out_row, int64_t rows, int64_t columns);
  // out[i] = bytes[i] * scale + shift
  void (*normalise)(const uint8_t* bytes, T* out, int64_t n, T scale, T shift);
  // dy[i] = y[i] <= 0 ? 0 : dy[i]
  void (*relu_backward)(const T* y, T* dy, int64_t n);
  // out[i] = max(in[i], 0); NaN stays NaN
  void (*relu)(const T* in, T* out, int64_t n);
  // out[i] = a[i] + b[i]
  void (*add)(const T* a, const T* b, T* out, int64_t n);
  // out[r] = sum over lanes of in(r, :)
  void (*row_sum)(const T* in, int64_t in_row, T* out, int64_t rows, int64_t lanes);
  // Softmax cross-entropy of logits (classes, L) against targets of 1 - smoothing at the label and smoothing spread over all
  // classes (Szegedy et al. 2016). losses[n] per example; dlogits = (softmax - target) * scale for n < N and 0 in the
  // other lanes, or null. Returns the number of examples whose largest logit (the first of
  // equals) is the label's; a NaN logit is never right.
  int64_t (*cross_entropy)(const T* logits, int64_t row, int64_t classes, int64_t n, const int32_t* labels, T scale,
                           T smoothing, T* losses, T* dlogits);
  // One fused pass over (weight, gradient, momentum, mask) of 64 * words elements; entries whose bit is 0 become +0
  // in weight and state: selected, not multiplied, so that NaN or Inf in a gradient cannot leak (contract 7).
  void (*sgd)(const SgdStep<T>&, T* w, const T* g, T* m, const uint64_t* mask, int64_t words);
  void (*adam)(const AdamStep<T>&, T* w, const T* g, T* m, T* v, const uint64_t* mask, int64_t words);
  // v: means of squares; m: momentum, which has the rate in it, or null.
  void (*rmsprop)(const RmsPropStep<T>&, T* w, const T* g, T* v, T* m, const uint64_t* mask, int64_t words);
};

const Kernels<float>& kernels_f32(Isa isa);
// Double precision exists for the oracle tests: portable code only.
const Kernels<double>& kernels_f64();

}  // namespace lth
