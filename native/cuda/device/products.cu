// Convolutions of few channels and the gradients of weights by tensor cores, and the weights as they read them.

namespace lth::device {

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

}  // namespace lth::device
