// What stands behind the images: the mean over places, and a linear layer of few products, in fp32.

namespace lth::device {

// Vectors of up to kPooled channels of one example a block.
extern "C" __global__ void __launch_bounds__(kThreads) pool(const Pool p) {
  __shared__ float space[kThreads * kVector];
  const int all = p.channels / kVector, left = all - static_cast<int>(blockIdx.y) * kPooled, vectors = left < kPooled ? left : kPooled;
  const int rows = kThreads / vectors, row = threadIdx.x / vectors, vector = threadIdx.x % vectors;
  const int first = static_cast<int>(blockIdx.y) * kPooled * kVector;
  const Bf16* const from = p.x + static_cast<long long>(blockIdx.x) * p.places * p.channels + first + vector * kVector;
  float sums[kVector] = {};
  if (row < rows) {
#pragma unroll 4
    for (int place = row; place < p.places; place += rows) {
      float x[kVector];
      load(x, from + static_cast<long long>(place) * p.channels);
#pragma unroll
      for (int i = 0; i < kVector; ++i) sums[i] += x[i];
    }
#pragma unroll
    for (int i = 0; i < kVector; ++i) space[(row * vectors + vector) * kVector + i] = sums[i];
  }
  __syncthreads();
  const int columns = vectors * kVector;
  for (int c = threadIdx.x; c < columns; c += kThreads) {
    float sum = 0;
    for (int r = 0; r < rows; ++r) sum += space[r * columns + c];
    p.y[static_cast<long long>(blockIdx.x) * p.channels + first + c] = sum / static_cast<float>(p.places);
  }
}

extern "C" __global__ void __launch_bounds__(kThreads) pool_backward(const PoolBackward p) {
  const int all = p.channels / kVector;
  const long long i = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= static_cast<long long>(p.examples) * p.places * all) return;
  const float* const from = p.dy + i / all / p.places * p.channels + i % all * kVector;
  float d[kVector];
  load(d, from);
#pragma unroll
  for (int k = 0; k < kVector; ++k) d[k] = d[k] / static_cast<float>(p.places);
  store(p.dx + i * kVector, d);
}

// A warp for each output of each example.
extern "C" __global__ void __launch_bounds__(kThreads) linear(const Linear p) {
  const int one = static_cast<int>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (one >= p.examples * p.units) return;
  const int n = one / p.units, unit = one % p.units;
  const float* const x = p.x + static_cast<long long>(n) * p.channels;
  const float* const w = p.weights + static_cast<long long>(unit) * p.channels;
  float sum = 0;
#pragma unroll 4
  for (int c = lane; c < p.channels; c += 32) sum += x[c] * w[c];
  sum = sum_of_warp(sum);
  if (lane == 0) p.y[one] = sum + (p.bias ? p.bias[unit] : 0.0f);
}

// Of one unit and kGradients channels a block, whose rows take every so many-th example; of the first channels' block the
// bias's too.
extern "C" __global__ void __launch_bounds__(kThreads) linear_gradient(const LinearGradient p) {
  constexpr int kRows = kThreads / kGradients;
  __shared__ float space[2][kRows][kGradients];
  const int column = threadIdx.x % kGradients, row = threadIdx.x / kGradients;
  const int unit = blockIdx.x, c = static_cast<int>(blockIdx.y) * kGradients + column;
  float sum = 0, of_bias = 0;
#pragma unroll 8
  for (int n = row; n < p.examples; n += kRows) {
    const float d = p.dy[n * p.units + unit];
    of_bias += d;
    if (c < p.channels) sum += d * p.x[static_cast<long long>(n) * p.channels + c];
  }
  space[0][row][column] = sum;
  space[1][row][column] = of_bias;
  __syncthreads();
  if (row != 0) return;
  for (int r = 1; r < kRows; ++r) {
    sum += space[0][r][column];
    of_bias += space[1][r][column];
  }
  if (c < p.channels) p.d_weights[static_cast<long long>(unit) * p.channels + c] = sum;
  if (c == 0 && p.d_bias) p.d_bias[unit] = of_bias;
}

// A thread for each input of each example.
extern "C" __global__ void __launch_bounds__(kThreads) linear_backward(const LinearBackward p) {
  const long long i = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= static_cast<long long>(p.examples) * p.channels) return;
  const long long n = i / p.channels;
  const float* const w = p.weights + i % p.channels;
  float sum = 0;
#pragma unroll 8
  for (int unit = 0; unit < p.units; ++unit) sum += p.dy[n * p.units + unit] * w[static_cast<long long>(unit) * p.channels];
  p.dx[i] = sum;
}

}  // namespace lth::device
