// Kernels for networks of images in bf16 on CUDA: what LibTorch makes of many small kernels, fused. NVRTC compiles them for
// the device at hand; native/test/22_device_test.cc runs the same text on the CPU. No atomics on floats, and grids that
// depend on shapes alone: the same bits every time.

#include "cuda/device/parameters.h"

namespace lth::device {

#ifndef LTH_EMULATED
__device__ inline unsigned pack2(float low, float high) {
  unsigned both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
}

// Four 8x8 matrices of bf16, transposed: lane l gives the address of row l % 8 of matrix l / 8.
__device__ inline void load_transposed(unsigned (&to)[4], const Bf16* row) {
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
}

// d (16, 8) += a (16, 16) b (16, 8)
__device__ inline void multiply(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#endif

__device__ inline void unpack(float (&to)[kVector], const uint4& from) {
  const unsigned words[4] = {from.x, from.y, from.z, from.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    to[2 * i] = __uint_as_float(words[i] << 16);
    to[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  }
}

__device__ inline uint4 pack(const float (&from)[kVector]) {
  return {pack2(from[0], from[1]), pack2(from[2], from[3]), pack2(from[4], from[5]), pack2(from[6], from[7])};
}

__device__ inline void load(float (&to)[kVector], const Bf16* from) {
  unpack(to, __ldg(reinterpret_cast<const uint4*>(from)));
}

__device__ inline void load(float (&to)[kVector], const float* from) {
#pragma unroll
  for (int i = 0; i < kVector; ++i) to[i] = from[i];
}

__device__ inline void store(Bf16* to, const float (&from)[kVector]) { *reinterpret_cast<uint4*>(to) = pack(from); }

// A thread's part of images: `vector` of each of the places first, first + step, ... Threads of a row read on.
struct Walk {
  int vectors;  // of a place, in this block
  int rows, row, vector;
  bool works;
  long long first, step;

  __device__ Walk(int channels) {
    const int all = channels / kVector;
    vectors = all < kThreads ? all : kThreads;
    rows = kThreads / vectors;
    row = threadIdx.x / vectors;
    vector = blockIdx.y * vectors + threadIdx.x % vectors;
    works = row < rows && vector < all;
    first = static_cast<long long>(blockIdx.x) * rows + row;
    step = static_cast<long long>(gridDim.x) * rows;
  }
};

// Sums over the rows of a block, in a fixed order, to row 0.
__device__ inline void sum_rows(float (&sums)[kSums], const Walk& w) {
  __shared__ float space[kSums][kThreads];
  for (int left = w.rows; left > 1;) {
    const int half = (left + 1) / 2;
    if (w.row >= half && w.row < left) {
#pragma unroll
      for (int i = 0; i < kSums; ++i) space[i][threadIdx.x] = sums[i];
    }
    __syncthreads();
    if (w.row < left - half) {
#pragma unroll
      for (int i = 0; i < kSums; ++i) sums[i] += space[i][threadIdx.x + half * w.vectors];
    }
    __syncthreads();
    left = half;
  }
}

// Of all blocks: true in the last one that comes here, whose row 0 then has the whole sums.
__device__ inline bool sum_blocks(float (&sums)[kSums], const Walk& w, int channels, float* partial, unsigned* done) {
  __shared__ unsigned before;
  const int all = channels / kVector;
  sum_rows(sums, w);
  if (w.works && w.row == 0) {
    float* to = partial + (static_cast<long long>(blockIdx.x) * all + w.vector) * kSums;
#pragma unroll
    for (int i = 0; i < kSums; ++i) to[i] = sums[i];
    __threadfence();
  }
  __syncthreads();
  if (threadIdx.x == 0) before = atomicAdd(done + blockIdx.y, 1u);
  __syncthreads();
  if (before != gridDim.x - 1) return false;
  if (threadIdx.x == 0) done[blockIdx.y] = 0;
  __threadfence();
#pragma unroll
  for (int i = 0; i < kSums; ++i) sums[i] = 0;
  if (w.works) {
    // Not through the cache of this multiprocessor, which has not seen what others wrote.
#pragma unroll 4
    for (int block = w.row; block < static_cast<int>(gridDim.x); block += w.rows) {
      const float4* from = reinterpret_cast<const float4*>(partial + (static_cast<long long>(block) * all + w.vector) * kSums);
#pragma unroll
      for (int i = 0; i < kSums / 4; ++i) {
        const float4 four = __ldcg(from + i);
        sums[4 * i] += four.x;
        sums[4 * i + 1] += four.y;
        sums[4 * i + 2] += four.z;
        sums[4 * i + 3] += four.w;
      }
    }
  }
  sum_rows(sums, w);
  return true;
}

// Mean and deviation of the batch, and what they do to the running ones.
extern "C" __global__ void __launch_bounds__(kThreads) moments(const Normalise p) {
  const Walk w(p.channels);
  float sums[kSums] = {}, shift[kVector];
  const int c0 = w.vector * kVector;
  if (w.works) {
    // Measured from a value that is there: squares of what is far from 0 would lose the deviation.
    load(shift, p.x + c0);
#pragma unroll 4
    for (long long place = w.first; place < p.places; place += w.step) {
      float x[kVector];
      load(x, p.x + place * p.channels + c0);
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        const float d = x[i] - shift[i];
        sums[i] += d;
        sums[kVector + i] += d * d;
      }
    }
  }
  if (!sum_blocks(sums, w, p.channels, p.partial, p.done) || !w.works || w.row != 0) return;
  const float n = static_cast<float>(p.places);
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    const int c = c0 + i;
    const float from_shift = sums[i] / n, mean = shift[i] + from_shift;
    float variance = sums[kVector + i] / n - from_shift * from_shift;
    if (variance < 0) variance = 0;
    p.mean[c] = mean;
    p.inverse_deviation[c] = 1.0f / sqrtf(variance + p.epsilon);
    if (p.running_mean) {
      // PyTorch's running variance is the unbiased one; of a single value it is 0.
      const float unbiased = p.places > 1 ? variance * (n / (n - 1)) : 0;
      p.running_mean[c] += p.momentum * (mean - p.running_mean[c]);
      p.running_variance[c] += p.momentum * (unbiased - p.running_variance[c]);
    }
  }
}

extern "C" __global__ void __launch_bounds__(kThreads) normalise(const Normalise p) {
  const Walk w(p.channels);
  if (!w.works) return;
  const int c0 = w.vector * kVector;
  float mean[kVector], scale[kVector], beta[kVector], gamma[kVector];
  load(mean, p.mean + c0);
  load(scale, p.inverse_deviation + c0);
  load(gamma, p.gamma + c0);
  load(beta, p.beta + c0);
#pragma unroll
  for (int i = 0; i < kVector; ++i) scale[i] *= gamma[i];
#pragma unroll 2
  for (long long place = w.first; place < p.places; place += w.step) {
    const long long at = place * p.channels + c0;
    float x[kVector], other[kVector] = {};
    load(x, p.x + at);
    if (p.other) load(other, p.other + at);
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      const float y = (x[i] - mean[i]) * scale[i] + beta[i] + other[i];
      // Not max, which would hide what is no number.
      x[i] = p.relu && y <= 0 ? 0 : y;
    }
    store(p.y + at, x);
  }
}

// The gradient of the sum before ReLU.
__device__ inline void gated(float (&d)[kVector], const NormaliseBackward& p, long long at) {
  load(d, p.d0 + at);
  if (p.d1) {
    float more[kVector];
    load(more, p.d1 + at);
#pragma unroll
    for (int i = 0; i < kVector; ++i) d[i] += more[i];
  }
  if (p.y) {
    float y[kVector];
    load(y, p.y + at);
#pragma unroll
    for (int i = 0; i < kVector; ++i) d[i] = y[i] <= 0 ? 0 : d[i];
  }
}

// Gradients of gamma and beta; of the other term, where there is one.
extern "C" __global__ void __launch_bounds__(kThreads) normalise_backward_sums(const NormaliseBackward p) {
  const Walk w(p.channels);
  float sums[kSums] = {};
  const int c0 = w.vector * kVector;
  if (w.works) {
    float mean[kVector];
    load(mean, p.mean + c0);
#pragma unroll 2
    for (long long place = w.first; place < p.places; place += w.step) {
      const long long at = place * p.channels + c0;
      float d[kVector], x[kVector];
      load(x, p.x + at);
      gated(d, p, at);
      if (p.d_other) {
        const uint4 stored = pack(d);
        *reinterpret_cast<uint4*>(p.d_other + at) = stored;
        unpack(d, stored);  // what the second kernel reads
      }
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        sums[i] += d[i];
        sums[kVector + i] += d[i] * (x[i] - mean[i]);
      }
    }
  }
  if (!sum_blocks(sums, w, p.channels, p.partial, p.done) || !w.works || w.row != 0) return;
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    p.d_beta[c0 + i] = sums[i];
    p.d_gamma[c0 + i] = sums[kVector + i] * p.inverse_deviation[c0 + i];
  }
}

extern "C" __global__ void __launch_bounds__(kThreads) normalise_backward(const NormaliseBackward p) {
  const Walk w(p.channels);
  if (!w.works) return;
  const int c0 = w.vector * kVector;
  // dx = a d - b (x - mean) - c
  float mean[kVector], a[kVector], b[kVector], c[kVector];
  {
    float gamma[kVector], d_gamma[kVector], d_beta[kVector];
    load(mean, p.mean + c0);
    load(a, p.inverse_deviation + c0);
    load(gamma, p.gamma + c0);
    load(d_gamma, p.d_gamma + c0);
    load(d_beta, p.d_beta + c0);
    const float n = static_cast<float>(p.places);
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      const float inverse = a[i];
      a[i] = gamma[i] * inverse;
      b[i] = a[i] * inverse * d_gamma[i] / n;
      c[i] = a[i] * d_beta[i] / n;
    }
  }
#pragma unroll 2
  for (long long place = w.first; place < p.places; place += w.step) {
    const long long at = place * p.channels + c0;
    float d[kVector], x[kVector];
    load(x, p.x + at);
    if (p.d_other) {
      load(d, p.d_other + at);
    } else {
      gated(d, p, at);
    }
#pragma unroll
    for (int i = 0; i < kVector; ++i) d[i] = a[i] * d[i] - b[i] * (x[i] - mean[i]) - c[i];
    store(p.dx + at, d);
  }
}

template <typename T>
__device__ inline T sum_of_warp(T value) {
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

// A warp for each example; the last block adds them up.
extern "C" __global__ void __launch_bounds__(kThreads) loss(const Loss p) {
  __shared__ unsigned before;
  const int lane = threadIdx.x % 32, n = blockIdx.x * (kThreads / 32) + threadIdx.x / 32;
  if (n < p.examples) {
    const float* logits = p.logits + static_cast<long long>(n) * p.classes;
    float* d = p.d_logits + static_cast<long long>(n) * p.classes;
    const int label = static_cast<int>(p.labels[n]);
    float best = __uint_as_float(0xff800000u);  // -inf
    int where = 0x7fffffff;
    for (int c = lane; c < p.classes; c += 32) {
      if (logits[c] > best) {
        best = logits[c];
        where = c;
      }
    }
    for (int offset = 16; offset > 0; offset /= 2) {
      const float other = __shfl_xor_sync(0xffffffffu, best, offset);
      const int its = __shfl_xor_sync(0xffffffffu, where, offset);
      if (other > best || (other == best && its < where)) {
        best = other;
        where = its;
      }
    }
    float sum = 0;
    for (int c = lane; c < p.classes; c += 32) sum += expf(logits[c] - best);
    sum = sum_of_warp(sum);
    const float log_sum = logf(sum);
    for (int c = lane; c < p.classes; c += 32) {
      d[c] = (expf(logits[c] - best - log_sum) - (c == label ? 1.0f : 0.0f)) / static_cast<float>(p.examples);
    }
    if (lane == 0) {
      p.loss_of[n] = best + log_sum - logits[label];
      p.right[n] = where == label;
      __threadfence();
    }
  }
  __syncthreads();
  if (threadIdx.x == 0) before = atomicAdd(p.done, 1u);
  __syncthreads();
  if (before != gridDim.x - 1) return;
  if (threadIdx.x == 0) *p.done = 0;
  __threadfence();
  if (threadIdx.x >= 32) return;
  double total = 0;
  int right = 0;
  for (int i = lane; i < p.examples; i += 32) {
    total += static_cast<double>(__ldcg(p.loss_of + i));
    right += __ldcg(p.right + i);
  }
  total = sum_of_warp(total);
  right = sum_of_warp(right);
  if (lane == 0) {
    p.measured[0] = total;
    p.measured[1] = right;
  }
}

// A thread for each place of each example.
extern "C" __global__ void __launch_bounds__(kThreads) assemble(const Assemble p) {
  const long long i = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
  const int plane = p.height * p.width;
  const int n = static_cast<int>(i / plane), place = static_cast<int>(i % plane);
  if (n >= p.examples) return;
  const long long row = p.where[n];
  if (place == 0) p.labels_out[n] = p.labels[row];
  int y = place / p.width, x = place % p.width;
  if (p.cropped) {
    if (p.where[3 * p.examples + n]) x = p.width - 1 - x;
    y += p.where[p.examples + n];
    x += p.where[2 * p.examples + n];
  }
  const bool inside = y >= 0 && y < p.height && x >= 0 && x < p.width;
  const unsigned char* from = p.images + row * p.channels * plane + y * p.width + x;
  Bf16* to = p.x + i * p.channels;
  for (int c = 0; c < p.channels; ++c) {
    const float byte = inside ? static_cast<float>(from[c * plane]) : 0;
    to[c] = static_cast<Bf16>(pack2(byte * p.scale[c] + p.shift[c], 0) & 0xffff);
  }
}

// The entry whose block this is.
template <typename Entry>
__device__ inline int entry_of_block(const Entry* entries, int count) {
  int low = 0, high = count;  // first_block of low <= this block < that of high
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (entries[middle].first_block <= static_cast<int>(blockIdx.x)) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

extern "C" __global__ void __launch_bounds__(kThreads) turn_weights(const TurnWeights p) {
  const Weights e = p.entries[entry_of_block(p.entries, p.count)];
  const int size = e.units * e.channels * e.taps;
  const int first = (static_cast<int>(blockIdx.x) - e.first_block) * kThreads * kPerThread + threadIdx.x;
#pragma unroll
  for (int k = 0; k < kPerThread; ++k) {
    const int i = first + k * kThreads;
    if (i >= size) continue;
    const int c = i % e.channels, tap = i / e.channels % e.taps, unit = i / e.channels / e.taps;
    e.to[i] = static_cast<Bf16>(pack2(e.from[(unit * e.channels + c) * e.taps + tap], 0) & 0xffff);
  }
}

// Channels [c0, c0 + 16 TILES) of one place to shared memory; 0 where `from` is null, and beyond the last channel.
template <int TILES>
__device__ inline void copy_vector(Bf16* to, const Bf16* from, int vector, int c0, int channels) {
  const int c = c0 + vector * kVector;
  uint4 values = {0, 0, 0, 0};
  if (from && c < channels) {
    if (channels % kVector == 0) {
      values = __ldg(reinterpret_cast<const uint4*>(from + c));
    } else {
      unsigned words[4] = {};
      for (int i = 0; i < kVector && c + i < channels; ++i) {
        words[i / 2] |= static_cast<unsigned>(from[c + i]) << (16 * (i % 2));
      }
      values = {words[0], words[1], words[2], words[3]};
    }
  }
  *reinterpret_cast<uint4*>(to + vector * kVector) = values;
}

template <int KT, int CT, int TAPS>
__device__ inline void weight_gradient(const WeightGradient& p) {
  constexpr int kWarps = kThreads / 32, kJobs = KT * CT, kSplits = kWarps / kJobs;
  constexpr int kX = 16 * CT + kPadding, kDy = 16 * KT + kPadding;
  __shared__ uint4 space[kSpace / sizeof(uint4)];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int job = warp % kJobs, split = warp / kJobs;
  const int unit_tiles = (p.units + 16 * KT - 1) / (16 * KT);
  const int k0 = static_cast<int>(blockIdx.y) % unit_tiles * 16 * KT, c0 = static_cast<int>(blockIdx.y) / unit_tiles * 16 * CT;
  const int taps = p.kernel_h * p.kernel_w, tap0 = static_cast<int>(blockIdx.z) * TAPS;
  Bf16* const x_band = reinterpret_cast<Bf16*>(space);
  Bf16* const dy_band = x_band + p.band_height * p.band_width * kX;

  // Where a tap's x lies from that of the first one.
  int tap_at[TAPS];
#pragma unroll
  for (int t = 0; t < TAPS; ++t) {
    const int tap = tap0 + t < taps ? tap0 + t : taps - 1;
    tap_at[t] = (tap / p.kernel_w * p.band_width + tap % p.kernel_w) * kX;
  }
  float sums[TAPS][2][4] = {};
  const int row = lane % 8, matrix = lane / 8;
  const int of_dy = (job % KT) * 16 + (matrix & 1) * 8, of_x = (job / KT) * 16 + (matrix >> 1) * 8;

  const int all = p.examples * p.bands;
  for (int one = blockIdx.x; one < all; one += gridDim.x) {
    const int n = one / p.bands, y0 = one % p.bands * p.band;
    const int rows = p.out_height - y0 < p.band ? p.out_height - y0 : p.band;
    const int places = rows * p.out_width, steps = (places + 15) / 16;
    __syncthreads();  // the band before is multiplied
    for (int i = threadIdx.x; i < p.band_height * p.band_width * 2 * CT; i += kThreads) {
      const int vector = i % (2 * CT), place = i / (2 * CT);
      const int y = y0 * p.stride_h - p.padding_h + place / p.band_width, x = place % p.band_width - p.padding_w;
      const bool inside = y >= 0 && y < p.height && x >= 0 && x < p.width;
      const Bf16* from = p.x + ((static_cast<long long>(n) * p.height + y) * p.width + x) * p.channels;
      copy_vector<CT>(x_band + place * kX, inside ? from : nullptr, vector, c0, p.channels);
    }
    const Bf16* dy = p.dy + (static_cast<long long>(n) * p.out_height + y0) * p.out_width * p.units;
    for (int i = threadIdx.x; i < steps * 16 * 2 * KT; i += kThreads) {
      const int vector = i % (2 * KT), place = i / (2 * KT);
      copy_vector<KT>(dy_band + place * kDy, place < places ? dy + static_cast<long long>(place) * p.units : nullptr, vector,
                      k0, p.units);
    }
    __syncthreads();
    for (int step = split; step < steps; step += kSplits) {
      unsigned a[4];
      load_transposed(a, dy_band + (step * 16 + row + (matrix >> 1) * 8) * kDy + of_dy);
      // Beyond the last place dy is 0, and x is anything that is there.
      int place = step * 16 + row + (matrix & 1) * 8;
      if (place >= places) place = 0;
      const Bf16* x = x_band + (place / p.out_width * p.stride_h * p.band_width + place % p.out_width * p.stride_w) * kX + of_x;
#pragma unroll
      for (int t = 0; t < TAPS; ++t) {
        unsigned b[4];
        load_transposed(b, x + tap_at[t]);
        multiply(sums[t][0], a, b[0], b[1]);
        multiply(sums[t][1], a, b[2], b[3]);
      }
    }
  }

  // The sums of the warps that had the same job, in their order.
  float* const joined = reinterpret_cast<float*>(space);  // (kJobs, kSplits, 16, 16)
#pragma unroll
  for (int t = 0; t < TAPS; ++t) {
    if (tap0 + t >= taps) break;
    __syncthreads();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int k = lane / 4 + (i >> 1) * 8, c = half * 8 + lane % 4 * 2 + (i & 1);
        joined[(job * kSplits + split) * 256 + k * 16 + c] = sums[t][half][i];
      }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < kJobs * 256; i += kThreads) {
      const int of = i / 256, k = k0 + of % KT * 16 + i % 256 / 16, c = c0 + of / KT * 16 + i % 16;
      if (k >= p.units || c >= p.channels) continue;
      float sum = 0;
      for (int s = 0; s < kSplits; ++s) sum += joined[(of * kSplits + s) * 256 + i % 256];
      p.partial[((static_cast<long long>(blockIdx.x) * taps + tap0 + t) * p.units + k) * p.channels + c] = sum;
    }
  }
}

#define LTH_WEIGHT_GRADIENT(KT, CT, TAPS)                                                                         \
  extern "C" __global__ void __launch_bounds__(kThreads, 2) weight_gradient_##KT##CT##TAPS(const WeightGradient p) { \
    weight_gradient<KT, CT, TAPS>(p);                                                                             \
  }
LTH_WEIGHT_GRADIENT(1, 1, 1)
LTH_WEIGHT_GRADIENT(1, 2, 1)
LTH_WEIGHT_GRADIENT(2, 1, 1)
LTH_WEIGHT_GRADIENT(2, 2, 1)
LTH_WEIGHT_GRADIENT(1, 1, 9)
LTH_WEIGHT_GRADIENT(1, 2, 9)
LTH_WEIGHT_GRADIENT(2, 1, 9)
LTH_WEIGHT_GRADIENT(2, 2, 9)
#undef LTH_WEIGHT_GRADIENT

extern "C" __global__ void __launch_bounds__(kThreads) join_gradients(const JoinGradients p) {
  constexpr int kRows = kThreads / kJoined;
  __shared__ float space[kRows][kJoined];
  const Join e = p.entries[entry_of_block(p.entries, p.count)];
  const int size = e.units * e.channels * e.taps;
  const int one = threadIdx.x % kJoined, row = threadIdx.x / kJoined;
  const int i = (static_cast<int>(blockIdx.x) - e.first_block) * kJoined + one;
  float sum = 0;
  if (i < size) {
#pragma unroll 8
    for (int block = row; block < e.blocks; block += kRows) sum += __ldg(e.partial + static_cast<long long>(block) * size + i);
  }
  space[row][one] = sum;
  __syncthreads();
  if (row != 0 || i >= size) return;
  for (int r = 1; r < kRows; ++r) sum += space[r][one];
  const int c = i % e.channels, unit = i / e.channels % e.units, tap = i / e.channels / e.units;
  e.gradient[(unit * e.channels + c) * e.taps + tap] = sum;
}

// As optimiser.cc does through ATen: pruned weights and their momentum are +0 and stay it, whatever their gradient was.
extern "C" __global__ void __launch_bounds__(kThreads) sgd(const Sgd p) {
  const long long i = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= p.size || !p.keep[i]) return;
  const float w = p.weights[i];
  float g = p.gradients[i] + p.decay * w;
  if (p.momentum) {
    const float m = p.factor * p.momentum[i] + g;
    p.momentum[i] = m;
    g = p.nesterov ? g + p.factor * m : m;
  }
  p.weights[i] = w - p.rate * g;
}

}  // namespace lth::device
