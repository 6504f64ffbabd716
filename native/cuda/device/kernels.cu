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

// Four 8x8 matrices of bf16: lane l gives the address of row l % 8 of matrix l / 8.
__device__ inline void load_rows(unsigned (&to)[4], const Bf16* row) {
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
}
// The same, transposed.
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

// A thread's part of images: `vector` of each of the places first, first + step, ... Threads of a row read on. A block has
// few channels of many places, so that its sums are few; blocks of the same blockIdx.y have the same channels.
struct Walk {
  int all;      // vectors of a place
  int vectors;  // of those, in this block
  int rows, row, vector;
  bool works;
  long long first, step;

};

__device__ inline Walk walk(int channels) {
  Walk w;
  w.all = channels / kVector;
  w.vectors = w.all < kMostVectors ? w.all : kMostVectors;
  w.rows = kThreads / w.vectors;
  w.row = threadIdx.x / w.vectors;
  w.vector = blockIdx.y * w.vectors + threadIdx.x % w.vectors;
  w.works = w.row < w.rows && w.vector < w.all;
  w.first = static_cast<long long>(blockIdx.x) * w.rows + w.row;
  w.step = static_cast<long long>(gridDim.x) * w.rows;
  return w;
}

// Over the rows of a block, in a fixed order, to `total` (vectors, kSums).
__device__ inline void sum_rows(float (&sums)[kSums], const Walk& w, float (&total)[kMostVectors * kSums]) {
  __shared__ float space[kSums * kThreads];
  const int slot = threadIdx.x % w.vectors * kSums;
  if ((w.vectors & (w.vectors - 1)) == 0) {
    // Rows of a warp, then the warps.
    for (int offset = 16; offset >= w.vectors; offset /= 2) {
#pragma unroll
      for (int i = 0; i < kSums; ++i) sums[i] += __shfl_xor_sync(0xffffffffu, sums[i], offset);
    }
    __syncthreads();  // what was there before is read
    if (static_cast<int>(threadIdx.x % 32) < w.vectors) {
#pragma unroll
      for (int i = 0; i < kSums; ++i) space[threadIdx.x / 32 * kMostVectors * kSums + slot + i] = sums[i];
    }
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < w.vectors * kSums) {
      float sum = 0;
#pragma unroll
      for (int warp = 0; warp < kThreads / 32; ++warp) sum += space[warp * kMostVectors * kSums + threadIdx.x];
      total[threadIdx.x] = sum;
    }
  } else {
    for (int left = w.rows; left > 1;) {
      const int half = (left + 1) / 2;
      __syncthreads();
      if (w.row >= half && w.row < left) {
#pragma unroll
        for (int i = 0; i < kSums; ++i) space[i * kThreads + threadIdx.x] = sums[i];
      }
      __syncthreads();
      if (w.row < left - half) {
#pragma unroll
        for (int i = 0; i < kSums; ++i) sums[i] += space[i * kThreads + threadIdx.x + half * w.vectors];
      }
      left = half;
    }
    if (w.row == 0) {
#pragma unroll
      for (int i = 0; i < kSums; ++i) total[slot + i] = sums[i];
    }
  }
  __syncthreads();
}

#ifndef LTH_EMULATED
// Of all blocks with this blockIdx.y, which must all be running: launched as a cooperative kernel. What they wrote before is
// seen after it, by loads that do not go through this multiprocessor's own cache.
__device__ inline void wait_for_blocks(unsigned* barrier) {
  __syncthreads();
  if (threadIdx.x == 0) {
    unsigned* const arrived = barrier + 2 * blockIdx.y;
    volatile unsigned* const generation = arrived + 1;
    const unsigned mine = *generation;
    __threadfence();
    if (atomicAdd(arrived, 1u) == gridDim.x - 1) {
      *arrived = 0;
      __threadfence();
      *generation = mine + 1;
    } else {
      while (*generation == mine) {
      }
    }
    __threadfence();
  }
  __syncthreads();
}
#endif

// Of all blocks: `total` is the same in each of them afterwards.
__device__ inline void sum_blocks(float (&sums)[kSums], const Walk& w, float* partial, unsigned* barrier,
                                  float (&total)[kMostVectors * kSums]) {
  sum_rows(sums, w, total);
  const int slot = threadIdx.x, first = blockIdx.y * w.vectors * kSums;  // of this block's vectors
  const int size = w.all * kSums;
  if (slot < w.vectors * kSums && first + slot < size) {
    partial[static_cast<long long>(blockIdx.x) * size + first + slot] = total[slot];
  }
  wait_for_blocks(barrier);
#pragma unroll
  for (int i = 0; i < kSums; ++i) sums[i] = 0;
  if (w.works) {
#pragma unroll 4
    for (int block = w.row; block < static_cast<int>(gridDim.x); block += w.rows) {
      const float4* from = reinterpret_cast<const float4*>(partial + static_cast<long long>(block) * size + w.vector * kSums);
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
  sum_rows(sums, w, total);
}

extern "C" __global__ void __launch_bounds__(kThreads) normalise(const Normalise p) {
  __shared__ float total[kMostVectors * kSums];
  const Walk w = walk(p.channels);
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
  sum_blocks(sums, w, p.partial, p.barrier, total);
  if (!w.works) return;

  const bool writes = blockIdx.x == 0 && w.row == 0;
  const float n = static_cast<float>(p.places);
  const float* const of_vector = total + threadIdx.x % w.vectors * kSums;
  float mean[kVector], scale[kVector], beta[kVector];
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    const int c = c0 + i;
    const float from_shift = of_vector[i] / n;
    mean[i] = shift[i] + from_shift;
    float variance = of_vector[kVector + i] / n - from_shift * from_shift;
    if (variance < 0) variance = 0;
    const float inverse_deviation = 1.0f / sqrtf(variance + p.epsilon);
    scale[i] = inverse_deviation * p.gamma[c];
    beta[i] = p.beta[c];
    if (!writes) continue;
    p.mean[c] = mean[i];
    p.inverse_deviation[c] = inverse_deviation;
    if (p.running_mean) {
      // PyTorch's running variance is the unbiased one; of a single value it is 0.
      const float unbiased = p.places > 1 ? variance * (n / (n - 1)) : 0;
      p.running_mean[c] += p.momentum * (mean[i] - p.running_mean[c]);
      p.running_variance[c] += p.momentum * (unbiased - p.running_variance[c]);
    }
  }
#pragma unroll 4
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

extern "C" __global__ void __launch_bounds__(kThreads) normalise_backward(const NormaliseBackward p) {
  __shared__ float total[kMostVectors * kSums];
  const Walk w = walk(p.channels);
  float sums[kSums] = {}, mean[kVector];
  const int c0 = w.vector * kVector;
  if (w.works) {
    load(mean, p.mean + c0);
#pragma unroll 4
    for (long long place = w.first; place < p.places; place += w.step) {
      const long long at = place * p.channels + c0;
      float d[kVector], x[kVector];
      load(x, p.x + at);
      gated(d, p, at);
      if (p.d_other) {
        const uint4 stored = pack(d);
        *reinterpret_cast<uint4*>(p.d_other + at) = stored;
        unpack(d, stored);  // what is read again below
      }
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        sums[i] += d[i];
        sums[kVector + i] += d[i] * (x[i] - mean[i]);
      }
    }
  }
  sum_blocks(sums, w, p.partial, p.barrier, total);
  if (!w.works) return;

  const bool writes = blockIdx.x == 0 && w.row == 0;
  const float n = static_cast<float>(p.places);
  const float* const of_vector = total + threadIdx.x % w.vectors * kSums;
  float a[kVector], b[kVector], c[kVector];  // dx = a d - b (x - mean) - c
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    const float inverse = p.inverse_deviation[c0 + i], d_gamma = of_vector[kVector + i] * inverse, d_beta = of_vector[i];
    a[i] = p.gamma[c0 + i] * inverse;
    b[i] = a[i] * inverse * d_gamma / n;
    c[i] = a[i] * d_beta / n;
    if (!writes) continue;
    p.d_gamma[c0 + i] = d_gamma;
    p.d_beta[c0 + i] = d_beta;
  }
#pragma unroll 4
  for (long long place = w.first; place < p.places; place += w.step) {
    const long long at = place * p.channels + c0;
    float d[kVector], x[kVector];
    load(x, p.x + at);
    if (p.d_other) {
      unpack(d, *reinterpret_cast<const uint4*>(p.d_other + at));  // by this thread, a moment ago
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
    const Bf16 weight = static_cast<Bf16>(pack2(e.from[(unit * e.channels + c) * e.taps + tap], 0) & 0xffff);
    e.to[i] = weight;
    if (e.back) e.back[(c * e.taps + e.taps - 1 - tap) * e.units + unit] = weight;
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

// A convolution of at most 16 channels to at most 16, with stride 1: a warp keeps all weights in its registers. cuDNN's
// kernels for so few channels take three times as long as reading and writing the images.
template <int TAPS>
__device__ inline void convolve(const Convolve& p) {
  constexpr int kX = 16 + kPadding, kWidth = TAPS == 9 ? 3 : 1;
  __shared__ uint4 space[kConvolveSpace / sizeof(uint4)];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int group = lane / 4, pair = lane % 4 * 2, row = lane % 8, matrix = lane / 8;
  Bf16* const x_band = reinterpret_cast<Bf16*>(space);

  // B of every tap (channels, 8 units) twice, as mma wants it.
  unsigned weights[TAPS][2][2];
#pragma unroll
  for (int t = 0; t < TAPS; ++t) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int unit = half * 8 + group;
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        unsigned word = 0;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int c = k * 8 + pair + i;
          if (unit < p.units && c < p.channels) {
            word |= static_cast<unsigned>(__ldg(p.weights + (unit * TAPS + t) * p.channels + c)) << (16 * i);
          }
        }
        weights[t][half][k] = word;
      }
    }
  }

  const int all = p.examples * p.bands;
  for (int one = blockIdx.x; one < all; one += gridDim.x) {
    const int n = one / p.bands, y0 = one % p.bands * p.band;
    const int rows = p.out_height - y0 < p.band ? p.out_height - y0 : p.band;
    const int places = rows * p.out_width, steps = (places + 15) / 16;
    __syncthreads();  // the band before is multiplied
    for (int i = threadIdx.x; i < p.band_height * p.band_width * 2; i += kThreads) {
      const int vector = i % 2, place = i / 2;
      const int y = y0 - p.padding_h + place / p.band_width, x = place % p.band_width - p.padding_w;
      const bool inside = y >= 0 && y < p.height && x >= 0 && x < p.width;
      const Bf16* from = p.x + ((static_cast<long long>(n) * p.height + y) * p.width + x) * p.channels;
      copy_vector<1>(x_band + place * kX, inside ? from : nullptr, vector, 0, p.channels);
    }
    __syncthreads();
    Bf16* const y_band = p.y + (static_cast<long long>(n) * p.out_height + y0) * p.out_width * p.units;
    for (int step = warp; step < steps; step += kThreads / 32) {
      int place = step * 16 + row + (matrix & 1) * 8;
      if (place >= places) place = 0;  // made, and not written
      const Bf16* x = x_band + (place / p.out_width * p.band_width + place % p.out_width) * kX + (matrix >> 1) * 8;
      float sums[2][4] = {};
#pragma unroll
      for (int t = 0; t < TAPS; ++t) {
        unsigned a[4];
        load_rows(a, x + (t / kWidth * p.band_width + t % kWidth) * kX);
        multiply(sums[0], a, weights[t][0][0], weights[t][0][1]);
        multiply(sums[1], a, weights[t][1][0], weights[t][1][1]);
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int low = 0; low < 2; ++low) {
          const int to = step * 16 + group + low * 8, unit = half * 8 + pair;
          if (to >= places) continue;
          const unsigned two = pack2(sums[half][2 * low], sums[half][2 * low + 1]);
          Bf16* y = y_band + static_cast<long long>(to) * p.units + unit;
          if (p.units % 2 == 0) {
            if (unit < p.units) *reinterpret_cast<unsigned*>(y) = two;
          } else {
            if (unit < p.units) y[0] = static_cast<Bf16>(two & 0xffff);
            if (unit + 1 < p.units) y[1] = static_cast<Bf16>(two >> 16);
          }
        }
      }
    }
  }
}

extern "C" __global__ void __launch_bounds__(kThreads, 2) convolve_1(const Convolve p) { convolve<1>(p); }
extern "C" __global__ void __launch_bounds__(kThreads, 2) convolve_9(const Convolve p) { convolve<9>(p); }

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
