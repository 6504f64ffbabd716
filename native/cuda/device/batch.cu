// What stands at both ends of an update: the batch, the loss, and SGD.

namespace lth::device {

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

// The arithmetic of optimiser.cc: pruned weights and their momentum are +0 and stay it, whatever their gradient was.
extern "C" __global__ void __launch_bounds__(kThreads) sgd(const Sgd p) {
  const long long i = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= p.size || !p.keep[i]) return;
  const float w = p.weights[i];
  const float decay = p.decayed && !p.decayed[i] ? 0.0f : p.decay;
  float g = p.gradients[i] + decay * w;
  if (p.momentum) {
    const float m = p.factor * p.momentum[i] + g;
    p.momentum[i] = m;
    g = p.nesterov ? g + p.factor * m : m;
  }
  p.weights[i] = w - p.rate * g;
}

}  // namespace lth::device
