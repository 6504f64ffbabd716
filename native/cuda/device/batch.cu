// What stands at both ends of an update: the batch, the loss, and SGD.

namespace lth::device {

// The place (y, x) of example n, cropped and flipped: its bytes, a plane apart from each other, where there are some.
struct Pixel {
  const unsigned char* bytes;
  bool inside;
};
__device__ inline Pixel pixel(const Assemble& p, int n, int y, int x) {
  if (p.cropped) {
    if (p.where[3 * p.examples + n]) x = p.width - 1 - x;
    y += p.where[p.examples + n];
    x += p.where[2 * p.examples + n];
  }
  const long long plane = p.height * p.width;
  return {p.images + p.where[n] * p.channels * plane + y * p.width + x, y >= 0 && y < p.height && x >= 0 && x < p.width};
}
__device__ inline float normalised(const Assemble& p, const Pixel& of, int c) {
  const float byte = of.inside ? static_cast<float>(of.bytes[c * p.height * p.width]) : 0;
  return byte * p.scale[c] + p.shift[c];
}

// A thread for each place of each example.
extern "C" __global__ void __launch_bounds__(kThreads) assemble(const Assemble p) {
  const long long i = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
  const int plane = p.height * p.width;
  const int n = static_cast<int>(i / plane), place = static_cast<int>(i % plane);
  if (n >= p.examples) return;
  if (place == 0) p.labels_out[n] = p.labels[p.where[n]];
  const Pixel of = pixel(p, n, place / p.width, place % p.width);
  for (int c = 0; c < p.channels; ++c) p.x[i * p.channels + c] = static_cast<Bf16>(pack2(normalised(p, of, c), 0) & 0xffff);
}

// A thread for each folded place of each example.
extern "C" __global__ void __launch_bounds__(kThreads) assemble_folded(const AssembleFolded p) {
  const long long i = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
  const int plane = p.height * p.width;
  const int n = static_cast<int>(i / plane), place = static_cast<int>(i % plane);
  if (n >= p.of.examples) return;
  if (place == 0) p.of.labels_out[n] = p.of.labels[p.of.where[n]];
  static_assert(kVector == 2 * kFoldedChannels);
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    float values[kVector] = {};
#pragma unroll
    for (int column = 0; column < 2; ++column) {
      const int y = 2 * (place / p.width) + row - p.padding_h, x = 2 * (place % p.width) + column - p.padding_w;
      if (y < 0 || y >= p.of.height || x < 0 || x >= p.of.width) continue;
      const Pixel of = pixel(p.of, n, y, x);
#pragma unroll
      for (int c = 0; c < kFoldedChannels; ++c) {
        if (c < p.of.channels) values[column * kFoldedChannels + c] = normalised(p.of, of, c);
      }
    }
    store(p.of.x + i * kFolded + row * kVector, values);
  }
}

// Where folded weights have the one of a unit, channel and tap.
__device__ inline int folded_index(const FoldedWeights& w, int unit, int c, int r, int q) {
  const int folded_h = (w.kernel_h + 1) / 2, folded_w = (w.kernel_w + 1) / 2;
  return ((unit * folded_h + r / 2) * folded_w + q / 2) * kFolded + (2 * (r % 2) + q % 2) * kFoldedChannels + c;
}

// A thread for each place of a folded kernel, of each unit.
extern "C" __global__ void __launch_bounds__(kThreads) fold_weights(const FoldWeights p) {
  const FoldedWeights& w = p.of;
  const int i = static_cast<int>(blockIdx.x) * kThreads + threadIdx.x;
  const int folded_h = (w.kernel_h + 1) / 2, folded_w = (w.kernel_w + 1) / 2;
  const int unit = i / (folded_h * folded_w), a = i / folded_w % folded_h, b = i % folded_w;
  if (unit >= w.units) return;
  for (int part = 0; part < 4; ++part) {
    const int r = 2 * a + part / 2, q = 2 * b + part % 2;
    for (int c = 0; c < kFoldedChannels; ++c) {
      const bool there = r < w.kernel_h && q < w.kernel_w && c < w.channels;
      const float weight = there ? p.from[((unit * w.channels + c) * w.kernel_h + r) * w.kernel_w + q] : 0;
      p.to[static_cast<long long>(i) * kFolded + part * kFoldedChannels + c] = static_cast<Bf16>(pack2(weight, 0) & 0xffff);
    }
  }
}

// A thread for each weight.
extern "C" __global__ void __launch_bounds__(kThreads) unfold_gradient(const UnfoldGradient p) {
  const FoldedWeights& w = p.of;
  const int i = static_cast<int>(blockIdx.x) * kThreads + threadIdx.x;
  const int taps = w.kernel_h * w.kernel_w;
  const int unit = i / (w.channels * taps), c = i / taps % w.channels, r = i % taps / w.kernel_w, q = i % w.kernel_w;
  if (unit >= w.units) return;
  p.to[i] = __uint_as_float(static_cast<unsigned>(p.from[folded_index(w, unit, c, r, q)]) << 16);
}

// Philox4x32-10, as core/random.cc has it.
struct Words {
  unsigned of[4];
};
__device__ inline Words philox(Words c, unsigned key0, unsigned key1) {
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const unsigned long long x = 0xD2511F53ull * c.of[0], y = 0xCD9E8D57ull * c.of[2];
    c = {{static_cast<unsigned>(y >> 32) ^ c.of[1] ^ key0, static_cast<unsigned>(y), static_cast<unsigned>(x >> 32) ^ c.of[3] ^ key1,
          static_cast<unsigned>(x)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return c;
}

// A thread for four elements.
extern "C" __global__ void __launch_bounds__(kThreads) drop(const Drop p) {
  const long long blocks = (p.elements + 3) / 4, i = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
  const long long n = i / blocks, block = i % blocks;
  if (n >= p.examples) return;
  const unsigned long long index = static_cast<unsigned long long>(p.rows[n]) * blocks + block;
  const Words words = philox({{static_cast<unsigned>(index), static_cast<unsigned>(index >> 32), p.epoch, p.layer}}, p.key[0], p.key[1]);
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    if (4 * block + j < p.elements) p.kept[n * p.elements + 4 * block + j] = words.of[j] >= p.dropped;
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
