// Batch norm with the sum and the ReLU behind it, one kernel each way.

namespace lth::device {

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

}  // namespace lth::device
