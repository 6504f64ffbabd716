// Pooling over windows, eight channels a thread.

namespace lth::device {

// A thread's vector of one of so many places: which example, row and column, and where its channels begin; false beyond the last.
struct Spot {
  int example, y, x, c0;
};
__device__ inline bool spot(Spot& s, int examples, int height, int width, int channels) {
  const long long vectors = channels / kVector, i = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
  const long long place = i / vectors, row = place / width;
  s.c0 = static_cast<int>(i % vectors) * kVector;
  s.x = static_cast<int>(place % width);
  s.y = static_cast<int>(row % height);
  s.example = static_cast<int>(row / height);
  return s.example < examples;
}
__device__ inline long long at(const Spot& s, int y, int x, int height, int width, int channels) {
  return ((static_cast<long long>(s.example) * height + y) * width + x) * channels + s.c0;
}

extern "C" __global__ void __launch_bounds__(kThreads) max_pool(const MaxPool p) {
  const Windows& w = p.windows;
  Spot s;
  if (!spot(s, w.examples, w.out_height, w.out_width, w.channels)) return;
  float best[kVector];
  unsigned which[kVector];
  bool any = false;
  for (int r = 0; r < w.kernel_h; ++r) {
    const int y = s.y * w.stride_h - w.padding_h + r;
    if (y < 0 || y >= w.height) continue;
    for (int q = 0; q < w.kernel_w; ++q) {
      const int x = s.x * w.stride_w - w.padding_w + q;
      if (x < 0 || x >= w.width) continue;
      float one[kVector];
      load(one, p.x + at(s, y, x, w.height, w.width, w.channels));
      const unsigned tap = static_cast<unsigned>(r * w.kernel_w + q);
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
        // What is no number is the largest.
        if (any && !(one[j] > best[j]) && one[j] == one[j]) continue;
        best[j] = one[j];
        which[j] = tap;
      }
      any = true;
    }
  }
  const long long to = at(s, s.y, s.x, w.out_height, w.out_width, w.channels);
  store(p.y + to, best);
  unsigned bytes[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) bytes[i] = which[4 * i] | which[4 * i + 1] << 8 | which[4 * i + 2] << 16 | which[4 * i + 3] << 24;
  *reinterpret_cast<uint2*>(p.which + to) = {bytes[0], bytes[1]};
}

// Of all windows that reach a place, from the first to the last.
extern "C" __global__ void __launch_bounds__(kThreads) max_pool_backward(const MaxPoolBackward p) {
  const Windows& w = p.windows;
  Spot s;
  if (!spot(s, w.examples, w.height, w.width, w.channels)) return;
  const int y = s.y + w.padding_h, x = s.x + w.padding_w;
  const int first_y = y < w.kernel_h ? 0 : (y - w.kernel_h) / w.stride_h + 1, first_x = x < w.kernel_w ? 0 : (x - w.kernel_w) / w.stride_w + 1;
  float sums[kVector] = {};
  for (int oy = first_y; oy < w.out_height && oy * w.stride_h <= y; ++oy) {
    for (int ox = first_x; ox < w.out_width && ox * w.stride_w <= x; ++ox) {
      const unsigned tap = static_cast<unsigned>((y - oy * w.stride_h) * w.kernel_w + x - ox * w.stride_w);
      const long long from = at(s, oy, ox, w.out_height, w.out_width, w.channels);
      const uint2 which = __ldg(reinterpret_cast<const uint2*>(p.which + from));
      float d[kVector];
      load(d, p.dy + from);
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
        const unsigned its = (j < 4 ? which.x : which.y) >> (j % 4 * 8) & 0xff;
        sums[j] += its == tap ? d[j] : 0;
      }
    }
  }
  store(p.dx + at(s, s.y, s.x, w.height, w.width, w.channels), sums);
}

}  // namespace lth::device
