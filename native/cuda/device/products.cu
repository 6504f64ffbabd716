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

// Channels [c0 + 8 vector, + 8) of one place to shared memory, there after `wait_for_copies`; 0 where it is not `inside`, and
// beyond the last channel. `from` is the place's first channel.
__device__ inline void copy_vector(Bf16* to, const Bf16* from, bool inside, int c, int channels) {
  if (channels % kVector == 0) {
    const bool there = inside && c < channels;
    copy_ahead(to, there ? from + c : from, there);
    return;
  }
  unsigned words[4] = {};
  if (inside) {
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      if (c + i < channels) words[i / 2] |= static_cast<unsigned>(from[c + i]) << (16 * (i % 2));
    }
  }
  *reinterpret_cast<uint4*>(to) = {words[0], words[1], words[2], words[3]};
}

// A band of an image, rows [y0, y0 + height) and columns [x0, x0 + width), VECTORS vectors of each place from channel c0 on,
// to shared memory with STRIDE channels a place. What lies beyond the image is 0.
template <int VECTORS, int STRIDE>
__device__ inline void copy_band(Bf16* to, const Bf16* image, int y0, int x0, int height, int width, int of_height, int of_width,
                                 int c0, int channels) {
  const int in_row = width * VECTORS;
  // The next one of this thread, without a division for each.
  const int rows = kThreads / in_row, columns = kThreads % in_row;
  int row = static_cast<int>(threadIdx.x) / in_row, column = static_cast<int>(threadIdx.x) % in_row;
  while (row < height) {
    const int place = column / VECTORS, vector = column % VECTORS, y = y0 + row, x = x0 + place;
    const bool inside = y >= 0 && y < of_height && x >= 0 && x < of_width;
    copy_vector(to + (row * width + place) * STRIDE + vector * kVector,
                image + (inside ? static_cast<long long>(y * of_width + x) * channels : 0), inside, c0 + vector * kVector, channels);
    row += rows;
    column += columns;
    if (column >= in_row) {
      column -= in_row;
      ++row;
    }
  }
}

// The row in which a place lies, of 1 / (places of a row): exact below 2^20 places, without a division.
__device__ inline int row_of(int place, float inverse) { return static_cast<int>((static_cast<float>(place) + 0.5f) * inverse); }

// A convolution of at most 16 TILES channels to at most as many, with stride 1: a warp keeps the weights of 16 units in its
// registers. cuDNN's kernels for so few channels take two to three times as long as reading and writing the images.
template <int TILES, int TAPS>
__device__ inline void convolve(const Convolve& p) {
  constexpr int kChannels = 16 * TILES, kX = kChannels + kPadding, kWidth = TAPS == 9 ? 3 : 1, kVectors = kChannels / kVector;
  __shared__ uint4 space[kConvolveSpace / sizeof(uint4)];
  __shared__ uint4 weights_space[kChannels * TAPS * kVectors];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int group = lane / 4, pair = lane % 4 * 2, row = lane % 8, matrix = lane / 8;
  const int unit0 = warp % TILES * 16;  // of this warp
  Bf16* const x_band = reinterpret_cast<Bf16*>(space);
  Bf16* const all_weights = reinterpret_cast<Bf16*>(weights_space);  // (units, taps, channels), kChannels of the first and last
  const float inverse = 1.0f / static_cast<float>(p.out_width);

  for (int i = threadIdx.x; i < kChannels * TAPS * kVectors; i += kThreads) {
    const int c = i % kVectors * kVector, of = i / kVectors;
    const bool inside = of / TAPS < p.units;
    copy_vector(all_weights + of * kChannels + c, inside ? p.weights + of * p.channels : p.weights, inside, c, p.channels);
  }
  // B as mma wants it, of 16 channels: units 0 to 7 of channels 0 to 7, of 8 to 15; units 8 to 15.
  unsigned weights[TAPS][TILES][4];

  // Of the moments: units unit0 + half * 8 + pair + i, as y has them once they are rounded, from the running mean. That is near
  // the batch's once there have been some.
  float shift[2][2] = {}, moments[2][2][2] = {};  // sum and squares, half, i
  if (p.sums_up) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int unit = unit0 + half * 8 + pair + i;
        if (unit < p.units) shift[half][i] = p.moments.running_mean[unit];
      }
    }
  }

  const int all = p.examples * p.bands;
  for (int one = blockIdx.x; one < all; one += gridDim.x) {
    const int n = one / p.bands, y0 = one % p.bands * p.band;
    const int rows = p.out_height - y0 < p.band ? p.out_height - y0 : p.band;
    const int places = rows * p.out_width, steps = (places + 15) / 16;
    __syncthreads();  // the band before is multiplied
    copy_band<kVectors, kX>(x_band, p.x + static_cast<long long>(n) * p.height * p.width * p.channels, y0 - p.padding_h, -p.padding_w,
                     p.band_height, p.band_width, p.height, p.width, 0, p.channels);
    wait_for_copies();
    __syncthreads();
    if (one == static_cast<int>(blockIdx.x)) {
#pragma unroll
      for (int t = 0; t < TAPS; ++t) {
#pragma unroll
        for (int k = 0; k < TILES; ++k) {
          load_rows(weights[t][k], all_weights + ((unit0 + (matrix >> 1) * 8 + row) * TAPS + t) * kChannels + k * 16 + (matrix & 1) * 8);
        }
      }
    }
    Bf16* const y_band = p.y + (static_cast<long long>(n) * p.out_height + y0) * p.out_width * p.units;
    for (int step = warp / TILES; step < steps; step += kThreads / 32 / TILES) {
      int place = step * 16 + row + (matrix & 1) * 8;
      if (place >= places) place = 0;  // made, and not written
      const int y = row_of(place, inverse);
      const Bf16* x = x_band + (y * p.band_width + place - y * p.out_width) * kX + (matrix >> 1) * 8;
      float sums[2][4] = {};
#pragma unroll
      for (int t = 0; t < TAPS; ++t) {
#pragma unroll
        for (int k = 0; k < TILES; ++k) {
          unsigned a[4];
          load_rows(a, x + (t / kWidth * p.band_width + t % kWidth) * kX + k * 16);
          multiply(sums[0], a, weights[t][k][0], weights[t][k][1]);
          multiply(sums[1], a, weights[t][k][2], weights[t][k][3]);
        }
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int low = 0; low < 2; ++low) {
          const int to = step * 16 + group + low * 8, unit = unit0 + half * 8 + pair;
          if (to >= places) continue;
          const unsigned two = pack2(sums[half][2 * low], sums[half][2 * low + 1]);
          if (p.sums_up) {
            const float d[2] = {__uint_as_float(two << 16) - shift[half][0], __uint_as_float(two & 0xffff0000u) - shift[half][1]};
#pragma unroll
            for (int i = 0; i < 2; ++i) {
              moments[0][half][i] += d[i];
              moments[1][half][i] += d[i] * d[i];
            }
          }
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

  if (!p.sums_up) return;
  float each[8];
#pragma unroll
  for (int q = 0; q < 8; ++q) each[q] = moments[q / 4][q / 2 % 2][q % 2];
  sum_by_halves<1>(each);  // lanes of the same `pair` have the same units
  __shared__ float of_warp[kThreads / 32][2][16], total[2 * kChannels];
  of_warp[warp][lane / 16][lane / 8 % 2 * 8 + pair + lane / 4 % 2] = each[0];
  __syncthreads();
  const int slot = threadIdx.x, c = slot % kChannels;
  if (slot < 2 * kChannels) {
    float sum = 0;
    for (int w = c / 16; w < kThreads / 32; w += TILES) sum += of_warp[w][slot / kChannels][c % 16];
    total[slot] = sum;
  }
  __syncthreads();
  if (!sum_blocks(total, 2 * kChannels, p.moments.partial, p.moments.done)) return;
  if (slot < p.units) finish_moments(p.moments, slot, p.moments.running_mean[slot], total[slot], total[kChannels + slot]);
}

extern "C" __global__ void __launch_bounds__(kThreads, 4) convolve_11(const Convolve p) { convolve<1, 1>(p); }
extern "C" __global__ void __launch_bounds__(kThreads, 4) convolve_19(const Convolve p) { convolve<1, 9>(p); }
extern "C" __global__ void __launch_bounds__(kThreads, 2) convolve_21(const Convolve p) { convolve<2, 1>(p); }
extern "C" __global__ void __launch_bounds__(kThreads, 2) convolve_29(const Convolve p) { convolve<2, 9>(p); }

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
  const float inverse = 1.0f / static_cast<float>(p.out_width);

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
    copy_band<2 * CT, kX>(x_band, p.x + static_cast<long long>(n) * p.height * p.width * p.channels, y0 * p.stride_h - p.padding_h,
                          -p.padding_w, p.band_height, p.band_width, p.height, p.width, c0, p.channels);
    const Bf16* dy = p.dy + (static_cast<long long>(n) * p.out_height + y0) * p.out_width * p.units;
    for (int i = threadIdx.x; i < steps * 16 * 2 * KT; i += kThreads) {
      const int vector = i % (2 * KT), place = i / (2 * KT);
      const bool inside = place < places;
      copy_vector(dy_band + place * kDy + vector * kVector, inside ? dy + static_cast<long long>(place) * p.units : dy, inside,
                  k0 + vector * kVector, p.units);
    }
    wait_for_copies();
    __syncthreads();
    for (int step = split; step < steps; step += kSplits) {
      unsigned a[4];
      load_transposed(a, dy_band + (step * 16 + row + (matrix >> 1) * 8) * kDy + of_dy);
      // Beyond the last place dy is 0, and x is anything that is there.
      int place = step * 16 + row + (matrix & 1) * 8;
      if (place >= places) place = 0;
      const int y = row_of(place, inverse);
      const Bf16* x = x_band + (y * p.stride_h * p.band_width + (place - y * p.out_width) * p.stride_w) * kX + of_x;
#pragma unroll
      for (int t = 0; t < TAPS; ++t) {
        unsigned b[4];
        load_transposed(b, x + tap_at[t]);
        multiply(sums[t][0], a, b[0], b[1]);
        multiply(sums[t][1], a, b[2], b[3]);
      }
    }
  }

  // The sums of the warps that had the same job, in their order, of as many taps at once as there is room for.
  constexpr int kRoom = kSpace / (kWarps * 256 * static_cast<int>(sizeof(float))), kTogether = TAPS < kRoom ? TAPS : kRoom;
  float* const joined = reinterpret_cast<float*>(space);  // (kTogether, kJobs, kSplits, 16, 16)
#pragma unroll
  for (int t0 = 0; t0 < TAPS; t0 += kTogether) {
    if (tap0 + t0 >= taps) break;
    __syncthreads();
#pragma unroll
    for (int t = t0; t < t0 + kTogether && t < TAPS; ++t) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int low = 0; low < 2; ++low) {
          float* const to = joined + (((t - t0) * kJobs + job) * kSplits + split) * 256 + (lane / 4 + low * 8) * 16 + half * 8 + lane % 4 * 2;
          to[0] = sums[t][half][2 * low];
          to[1] = sums[t][half][2 * low + 1];
        }
      }
    }
    __syncthreads();
    const int last = TAPS - t0 < kTogether ? TAPS - t0 : kTogether, left = taps - tap0 - t0 < last ? taps - tap0 - t0 : last;
    for (int i = threadIdx.x; i < left * kJobs * 256; i += kThreads) {
      const int t = i / (kJobs * 256), of = i / 256 % kJobs, at = i % 256;
      const int k = k0 + of % KT * 16 + at / 16, c = c0 + of / KT * 16 + at % 16;
      if (k >= p.units || c >= p.channels) continue;
      float sum = 0;
#pragma unroll
      for (int s = 0; s < kSplits; ++s) sum += joined[((t * kJobs + of) * kSplits + s) * 256 + at];
      p.partial[((static_cast<long long>(blockIdx.x) * taps + tap0 + t0 + t) * p.units + k) * p.channels + c] = sum;
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
  constexpr int kColumns = kJoined / 4, kRows = kThreads / kColumns;  // a thread has four sums, of every kRows-th block
  __shared__ float4 space[kRows][kColumns];
  const Join e = p.entries[entry_of_block(p.entries, p.count)];
  const int size = e.units * e.channels * e.taps;
  const int column = threadIdx.x % kColumns, row = threadIdx.x / kColumns;
  const int first = (static_cast<int>(blockIdx.x) - e.first_block) * kJoined + column * 4;
  float4 sum = {0, 0, 0, 0};
  if (size % 4 == 0) {
    if (first < size) {
#pragma unroll 8
      for (int block = row; block < e.blocks; block += kRows) {
        const float4 more = __ldg(reinterpret_cast<const float4*>(e.partial + static_cast<long long>(block) * size + first));
        sum = {sum.x + more.x, sum.y + more.y, sum.z + more.z, sum.w + more.w};
      }
    }
  } else {
    for (int block = row; block < e.blocks; block += kRows) {
      const float* from = e.partial + static_cast<long long>(block) * size + first;
      if (first < size) sum.x += __ldg(from);
      if (first + 1 < size) sum.y += __ldg(from + 1);
      if (first + 2 < size) sum.z += __ldg(from + 2);
      if (first + 3 < size) sum.w += __ldg(from + 3);
    }
  }
  space[row][column] = sum;
  __syncthreads();
  if (row != 0) return;
  for (int r = 1; r < kRows; ++r) {
    const float4 more = space[r][column];
    sum = {sum.x + more.x, sum.y + more.y, sum.z + more.z, sum.w + more.w};
  }
  const float sums[4] = {sum.x, sum.y, sum.z, sum.w};
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const int i = first + k;
    if (i >= size) break;
    const int c = i % e.channels, unit = i / e.channels % e.units, tap = i / e.channels / e.units;
    e.gradient[(unit * e.channels + c) * e.taps + tap] = sums[k];
  }
}

}  // namespace lth::device
