// Kernels for networks of images in bf16 on CUDA: what LibTorch makes of many small kernels, fused. The files of this folder are
// one text, this one first: NVRTC compiles it for the device at hand, native/test/22_device_test.cc runs it on the CPU. No
// atomics on floats, and grids that depend on shapes alone: the same bits every time.
//
// Here: numbers in bf16, eight at a time, and what tensor cores read.

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

// 16 bytes to shared memory while the thread goes on, zeros where it is not `inside`; there after `wait_for_copies`.
__device__ inline void copy_ahead(Bf16* to, const Bf16* from, bool inside) {
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to)), bytes = inside ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" : : "r"(address), "l"(from), "r"(bytes) : "memory");
}
__device__ inline void wait_for_copies() { asm volatile("cp.async.wait_all;" : : : "memory"); }

// d (16, 8) += a (16, 16) b (16, 8)
__device__ inline void multiply(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#endif

template <typename T>
__device__ inline T sum_of_warp(T value) {
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

// Over the lanes of a warp that differ above its lowest bits: half of them go on with half of the sums each time, so that of N
// sums a lane ends with the LEFT ones that its upper bits number, in sums[0] and behind it.
template <int LEFT, int N>
__device__ inline void sum_by_halves(float (&sums)[N]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int half = N / 2, offset = 16; half >= LEFT; half /= 2, offset /= 2) {
    const bool upper = (lane & offset) != 0;
#pragma unroll
    for (int i = 0; i < half; ++i) {
      const float mine = upper ? sums[half + i] : sums[i], other = upper ? sums[i] : sums[half + i];
      sums[i] = mine + __shfl_xor_sync(0xffffffffu, other, offset);
    }
  }
}

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

// Of the numbers in `from`, those where `y` is not at or below 0; else 0. Where y is no number, `from` stays.
__device__ inline uint4 where_positive(const uint4& from, const uint4& y) {
  const unsigned words[4] = {y.x, y.y, y.z, y.w};
  unsigned keep[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    keep[i] = (__uint_as_float(words[i] << 16) <= 0 ? 0u : 0xffffu) | (__uint_as_float(words[i] & 0xffff0000u) <= 0 ? 0u : 0xffff0000u);
  }
  return {from.x & keep[0], from.y & keep[1], from.z & keep[2], from.w & keep[3]};
}

// The same of numbers as they were before they were rounded.
__device__ inline uint4 where_positive(const uint4& from, const float (&y)[kVector]) {
  const unsigned words[4] = {from.x, from.y, from.z, from.w};
  unsigned kept[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    kept[i] = words[i] & ((y[2 * i] <= 0 ? 0u : 0xffffu) | (y[2 * i + 1] <= 0 ? 0u : 0xffff0000u));
  }
  return {kept[0], kept[1], kept[2], kept[3]};
}

__device__ inline void store(Bf16* to, const float (&from)[kVector]) { *reinterpret_cast<uint4*>(to) = pack(from); }

}  // namespace lth::device
