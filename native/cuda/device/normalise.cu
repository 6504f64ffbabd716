// Batch norm with the sum and the ReLU behind it: sums over all places, then a pass over the images, each way. Two kernels and not
// one whose blocks wait for each other: such a one runs alone, and trainings that share a device would wait for it.

namespace lth::device {

// A thread's part of images: `vector` of each of the places first, first + step, ... Threads of a row read on. Blocks of the
// same blockIdx.y have the same channels, at most MOST vectors.
struct Walk {
  int all;      // vectors of a place
  int vectors;  // of those, in this block
  int rows, row, vector;
  bool works;
  long long first, step;
};

template <int MOST>
__device__ inline Walk walk(int channels) {
  Walk w;
  w.all = channels / kVector;
  w.vectors = w.all < MOST ? w.all : MOST;
  w.rows = kThreads / w.vectors;
  w.row = threadIdx.x / w.vectors;
  w.vector = blockIdx.y * w.vectors + threadIdx.x % w.vectors;
  w.works = w.row < w.rows && w.vector < w.all;
  w.first = static_cast<long long>(blockIdx.x) * w.rows + w.row;
  w.step = static_cast<long long>(gridDim.x) * w.rows;
  return w;
}

// The thread's vectors of `from` at the places first + i * step; 0 beyond the last place.
template <int N>
__device__ inline void load_many(uint4 (&to)[N], const Bf16* from, long long first, const Walk& w, long long places, int channels) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const long long place = first + i * w.step;
    to[i] = place < places ? __ldg(reinterpret_cast<const uint4*>(from + place * channels)) : uint4{0, 0, 0, 0};
  }
}

// Over the rows of a block, in a fixed order: `total` (MOST, kSums) of its vectors, which are MOST, or one where that is 2.
template <int MOST>
__device__ inline void sum_rows(float (&sums)[kSums], const Walk& w, float (&total)[MOST * kSums]) {
  __shared__ float space[kThreads / 32][MOST * kSums];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  constexpr int kLeft = kSums * MOST / 32;
  sum_by_halves<kLeft>(sums);
  const int of = lane / MOST * kLeft;  // the upper bits chose it
  if (w.vectors == MOST) {
#pragma unroll
    for (int i = 0; i < kLeft; ++i) space[warp][lane % MOST * kSums + of + i] = sums[i];
  } else {
    sums[0] += __shfl_xor_sync(0xffffffffu, sums[0], 1);
    space[warp][of] = sums[0];
  }
  __syncthreads();
  if (static_cast<int>(threadIdx.x) < w.vectors * kSums) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kThreads / 32; ++i) sum += space[i][threadIdx.x];
    total[threadIdx.x] = sum;
  }
  __syncthreads();
}

// True in the block that comes last of those with its blockIdx.y: there `total`, of `columns` sums of each block, becomes the
// sum of them all, in their order, whichever is last. `done` is 0 before and after.
__device__ inline bool sum_blocks(float* total, int columns, float* partial, unsigned* done) {
  __shared__ bool last;
  __shared__ float space[kThreads];
  const int slot = threadIdx.x;
  const long long size = static_cast<long long>(gridDim.y) * columns, first = static_cast<long long>(blockIdx.y) * columns;
  if (slot < columns) {
    partial[blockIdx.x * size + first + slot] = total[slot];
    __threadfence();
  }
  __syncthreads();
  if (slot == 0) last = atomicAdd(done + blockIdx.y, 1u) == gridDim.x - 1;
  __syncthreads();
  if (!last) return false;
  if (slot == 0) done[blockIdx.y] = 0;
  __threadfence();
  const int rows = kThreads / columns, column = slot % columns, row = slot / columns;
  float sum = 0;
  if (row < rows) {
#pragma unroll 16
    for (int block = row; block < static_cast<int>(gridDim.x); block += rows) sum += __ldcg(partial + block * size + first + column);
  }
  space[slot] = sum;
  __syncthreads();
  if (slot < columns) {
    for (int r = 1; r < rows; ++r) sum += space[r * columns + slot];
    total[slot] = sum;
  }
  __syncthreads();
  return true;
}

// What there is to know of channel c, of the sums of x - shift and of their squares.
__device__ inline void finish_moments(const Moments& p, int c, float shift, float sum, float squares) {
  const float n = static_cast<float>(p.places), from_shift = sum / n, mean = shift + from_shift;
  float variance = squares / n - from_shift * from_shift;
  if (variance < 0) variance = 0;
  const float inverse_deviation = 1.0f / sqrtf(variance + p.epsilon), scale = inverse_deviation * p.gamma[c];
  p.mean[c] = mean;
  p.inverse_deviation[c] = inverse_deviation;
  p.scale[c] = scale;
  p.offset[c] = p.beta[c] - mean * scale;
  if (p.momentum == 0) return;
  // PyTorch's running variance is the unbiased one; of a single value it is 0.
  const float unbiased = p.places > 1 ? variance * (n / (n - 1)) : 0;
  p.running_mean[c] += p.momentum * (mean - p.running_mean[c]);
  p.running_variance[c] += p.momentum * (unbiased - p.running_variance[c]);
}

// Vectors of a tensor that a thread has under way at once, so that memory answers many questions in the time of one.
constexpr int kAtOnce = 4;

template <int MOST>
__device__ inline void sum_moments(const Moments& p) {
  __shared__ float total[MOST * kSums];
  const Walk w = walk<MOST>(p.channels);
  const Bf16* const from = p.x + w.vector * kVector;
  float sums[kSums] = {};
  if (w.works) {
    // Measured from a value that is there: squares of what is far from 0 would lose the deviation.
    float shift[kVector];
    load(shift, from);
    for (long long first = w.first; first < p.places; first += 2 * kAtOnce * w.step) {
      uint4 vectors[2 * kAtOnce];
      load_many(vectors, from, first, w, p.places, p.channels);
#pragma unroll
      for (int i = 0; i < 2 * kAtOnce; ++i) {
        if (first + i * w.step >= p.places) break;
        float x[kVector];
        unpack(x, vectors[i]);
#pragma unroll
        for (int j = 0; j < kVector; ++j) {
          const float d = x[j] - shift[j];
          sums[j] += d;
          sums[kVector + j] += d * d;
        }
      }
    }
  }
  sum_rows<MOST>(sums, w, total);
  if (!sum_blocks(total, w.vectors * kSums, p.partial, p.done)) return;
  // A thread for each channel.
  const int mine = threadIdx.x / kVector, i = threadIdx.x % kVector, c = static_cast<int>(blockIdx.y) * w.vectors * kVector + threadIdx.x;
  if (mine >= w.vectors || c >= p.channels) return;
  float first_x[kVector], shift = 0;
  unpack(first_x, *reinterpret_cast<const uint4*>(p.x + c - i));
#pragma unroll
  for (int j = 0; j < kVector; ++j) shift = i == j ? first_x[j] : shift;
  finish_moments(p, c, shift, total[mine * kSums + i], total[mine * kSums + kVector + i]);
}

extern "C" __global__ void __launch_bounds__(kThreads) moments_2(const Moments p) { sum_moments<2>(p); }
extern "C" __global__ void __launch_bounds__(kThreads) moments_4(const Moments p) { sum_moments<4>(p); }
extern "C" __global__ void __launch_bounds__(kThreads) moments_8(const Moments p) { sum_moments<8>(p); }

extern "C" __global__ void __launch_bounds__(kThreads) normalise(const Normalise p) {
  const Walk w = walk<kPassed>(p.channels);
  if (!w.works) return;
  const int c0 = w.vector * kVector;
  float scale[kVector], offset[kVector];
  load(scale, p.scale + c0);
  load(offset, p.offset + c0);
  for (long long first = w.first; first < p.places; first += kAtOnce * w.step) {
    uint4 vectors[kAtOnce], others[kAtOnce];
    load_many(vectors, p.x + c0, first, w, p.places, p.channels);
    if (p.other) load_many(others, p.other + c0, first, w, p.places, p.channels);
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const long long place = first + i * w.step;
      if (place >= p.places) break;
      float x[kVector], other[kVector] = {};
      unpack(x, vectors[i]);
      if (p.other) unpack(other, others[i]);
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
        const float y = fmaf(x[j], scale[j], offset[j]) + other[j];
        // Not max, which would hide what is no number.
        x[j] = p.relu && y <= 0 ? 0 : y;
      }
      store(p.y + place * p.channels + c0, x);
    }
  }
}

// Of a thread's channels: what `normalise` made y of, where that decides what a ReLU lets through.
struct Affine {
  float scale[kVector], offset[kVector];
};
__device__ inline void load(Affine& to, const OfBatchNorm& p, int c0) {
  if (!p.scale) return;
  load(to.scale, p.scale + c0);
  load(to.offset, p.offset + c0);
}

// The gradient of the sum before ReLU, where it is to be made of those of y. `x` is loaded.
template <int N>
__device__ inline void load_gradients(uint4 (&d)[N], const uint4 (&x)[N], const Affine& affine, const OfBatchNorm& p, const Walk& w,
                                      int c0, long long first) {
  load_many(d, p.d0 + c0, first, w, p.places, p.channels);
  uint4 more[N], y[N];
  if (p.d1) load_many(more, p.d1 + c0, first, w, p.places, p.channels);
  if (p.y) load_many(y, p.y + c0, first, w, p.places, p.channels);
  if (p.d1) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      float one[kVector], other[kVector];
      unpack(one, d[i]);
      unpack(other, more[i]);
#pragma unroll
      for (int j = 0; j < kVector; ++j) one[j] += other[j];
      d[i] = pack(one);
    }
  }
  if (p.y) {
#pragma unroll
    for (int i = 0; i < N; ++i) d[i] = where_positive(d[i], y[i]);
  }
  if (p.scale) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      float before[kVector];
      unpack(before, x[i]);
#pragma unroll
      for (int j = 0; j < kVector; ++j) before[j] = fmaf(before[j], affine.scale[j], affine.offset[j]);
      d[i] = where_positive(d[i], before);
    }
  }
}

template <int MOST>
__device__ inline void sum_gradient_moments(const GradientMoments& p) {
  __shared__ float total[MOST * kSums];
  const Walk w = walk<MOST>(p.of.channels);
  const int c0 = w.vector * kVector;
  float sums[kSums] = {};
  if (w.works) {
    float mean[kVector];
    load(mean, p.mean + c0);
    Affine affine;
    load(affine, p.of, c0);
    for (long long first = w.first; first < p.of.places; first += kAtOnce * w.step) {
      uint4 d[kAtOnce], x[kAtOnce];
      load_many(x, p.of.x + c0, first, w, p.of.places, p.of.channels);
      load_gradients(d, x, affine, p.of, w, c0, first);
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const long long place = first + i * w.step;
        if (place >= p.of.places) break;
        if (p.d_other) *reinterpret_cast<uint4*>(p.d_other + place * p.of.channels + c0) = d[i];
        float one[kVector], value[kVector];
        unpack(one, d[i]);
        unpack(value, x[i]);
#pragma unroll
        for (int j = 0; j < kVector; ++j) {
          sums[j] += one[j];
          sums[kVector + j] += one[j] * (value[j] - mean[j]);
        }
      }
    }
  }
  sum_rows<MOST>(sums, w, total);
  if (!sum_blocks(total, w.vectors * kSums, p.partial, p.done)) return;
  const int mine = threadIdx.x / kVector, i = threadIdx.x % kVector, c = static_cast<int>(blockIdx.y) * w.vectors * kVector + threadIdx.x;
  if (mine >= w.vectors || c >= p.of.channels) return;
  const float n = static_cast<float>(p.of.places), inverse = p.inverse_deviation[c];
  const float d_beta = total[mine * kSums + i], d_gamma = total[mine * kSums + kVector + i] * inverse;
  const float a = p.gamma[c] * inverse, b = a * inverse * d_gamma / n;
  p.d_gamma[c] = d_gamma;
  p.d_beta[c] = d_beta;
  p.of_d[c] = a;
  p.of_x[c] = -b;
  p.offset[c] = b * p.mean[c] - a * d_beta / n;
}

extern "C" __global__ void __launch_bounds__(kThreads) gradient_moments_2(const GradientMoments p) { sum_gradient_moments<2>(p); }
extern "C" __global__ void __launch_bounds__(kThreads) gradient_moments_4(const GradientMoments p) { sum_gradient_moments<4>(p); }
extern "C" __global__ void __launch_bounds__(kThreads) gradient_moments_8(const GradientMoments p) { sum_gradient_moments<8>(p); }

extern "C" __global__ void __launch_bounds__(kThreads) normalise_backward(const NormaliseBackward p) {
  const Walk w = walk<kPassed>(p.of.channels);
  if (!w.works) return;
  const int c0 = w.vector * kVector;
  float of_d[kVector], of_x[kVector], offset[kVector];
  load(of_d, p.of_d + c0);
  load(of_x, p.of_x + c0);
  load(offset, p.offset + c0);
  Affine affine;
  load(affine, p.of, c0);
  for (long long first = w.first; first < p.of.places; first += kAtOnce * w.step) {
    uint4 d[kAtOnce], x[kAtOnce];
    load_many(x, p.of.x + c0, first, w, p.of.places, p.of.channels);
    load_gradients(d, x, affine, p.of, w, c0, first);
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const long long place = first + i * w.step;
      if (place >= p.of.places) break;
      float one[kVector], value[kVector];
      unpack(one, d[i]);
      unpack(value, x[i]);
#pragma unroll
      for (int j = 0; j < kVector; ++j) one[j] = of_d[j] * one[j] + of_x[j] * value[j] + offset[j];
      store(p.dx + place * p.of.channels + c0, one);
    }
  }
}

}  // namespace lth::device
