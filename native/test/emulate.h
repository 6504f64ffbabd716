// Runs kernels of native/cuda/device on the CPU: every thread of a block is a fiber that goes on to the next place where it
// waits for others.
#pragma once
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "cuda/device/plan.h"

#define LTH_EMULATED
#define __device__ static
#define __global__
#define __shared__ static
#define __launch_bounds__(...)

namespace lth::emulated {

struct Three {
  unsigned x = 0, y = 0, z = 0;
};

// Of fibers that come here, all go on when the last has come.
struct Barrier {
  int waiting = 0, generation = 0;
};

struct Block;
struct Thread {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  Three index;
  Block* block = nullptr;
  const Barrier* waits_at = nullptr;
  int generation = 0;  // of that barrier, when it came there
  bool ended = false;
};
struct Block {
  Three index;
  std::vector<Thread> threads;
  Barrier of_all;
  std::vector<Barrier> of_warp;
  uint64_t shown[device::kThreads][6];  // what each thread shows the others of its warp
  int ended = 0;
};

inline constexpr size_t kStack = 96 * 1024;
inline Thread* current = nullptr;
inline ucontext_t scheduler;
inline Three grid;
inline const std::function<void()>* body = nullptr;

inline int lane() { return static_cast<int>(current->index.x % 32); }
inline int warp() { return static_cast<int>(current->index.x / 32); }

inline void yield() { swapcontext(&current->context, &scheduler); }

inline void wait(Barrier& barrier, int of) {
  const int generation = barrier.generation;
  if (++barrier.waiting == of) {
    barrier.waiting = 0;
    ++barrier.generation;
    return;
  }
  current->waits_at = &barrier;
  current->generation = generation;
  yield();
  current->waits_at = nullptr;
}
inline void wait_for_block() { wait(current->block->of_all, device::kThreads); }
inline void wait_for_warp() { wait(current->block->of_warp[static_cast<size_t>(warp())], 32); }

// All lanes of a warp show some words; then `look` may read those of another. They go on together.
template <size_t N, typename Look>
void exchange(const uint64_t (&words)[N], const Look& look) {
  static_assert(N <= 6);
  const auto& shown = current->block->shown;
  std::memcpy(current->block->shown[current->index.x], words, sizeof words);
  wait_for_warp();
  look([&](int other) -> const uint64_t* { return shown[warp() * 32 + other]; });
  wait_for_warp();
}

inline void start() {
  (*body)();
  current->ended = true;
  ++current->block->ended;
  yield();
}

inline void begin(Block& block, Three index) {
  block.index = index;
  block.threads.resize(device::kThreads);
  block.of_warp.assign(device::kThreads / 32, {});
  block.of_all = {};
  block.ended = 0;
  for (size_t i = 0; i < block.threads.size(); ++i) {
    Thread& thread = block.threads[i];
    if (!thread.stack) thread.stack = std::make_unique<char[]>(kStack);
    getcontext(&thread.context);
    thread.context.uc_stack = {.ss_sp = thread.stack.get(), .ss_flags = 0, .ss_size = kStack};
    thread.context.uc_link = nullptr;
    thread.index = {static_cast<unsigned>(i), 0, 0};
    thread.block = &block;
    thread.waits_at = nullptr;
    thread.ended = false;
    makecontext(&thread.context, start, 0);
  }
}

// Each of its threads once, to the next place where it waits; false where all have ended.
inline bool go_on(Block& block) {
  for (Thread& thread : block.threads) {
    if (thread.ended || (thread.waits_at && thread.waits_at->generation == thread.generation)) continue;
    current = &thread;
    swapcontext(&scheduler, &thread.context);
  }
  return block.ended < device::kThreads;
}

// kernel(parameters) in every thread of every block, one block after the other.
inline void launch(const device::Grid& shape, const std::function<void()>& kernel) {
  static Block block;
  grid = {shape.x, shape.y, shape.z};
  body = &kernel;
  for (unsigned z = 0; z < shape.z; ++z) {
    for (unsigned y = 0; y < shape.y; ++y) {
      for (unsigned x = 0; x < shape.x; ++x) {
        begin(block, {x, y, z});
        while (go_on(block)) {
        }
      }
    }
  }
}

}  // namespace lth::emulated

#define threadIdx (::lth::emulated::current->index)
#define blockIdx (::lth::emulated::current->block->index)
#define gridDim (::lth::emulated::grid)

namespace lth::device {

struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

template <typename T>
T __ldg(const T* p) {
  return *p;
}
template <typename T>
T __ldcg(const T* p) {
  return *p;
}
inline float __uint_as_float(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline void __syncthreads() { emulated::wait_for_block(); }
inline void __threadfence() {}
inline unsigned atomicAdd(unsigned* to, unsigned more) {
  const unsigned before = *to;
  *to += more;
  return before;
}
template <typename T>
T __shfl_xor_sync(unsigned, T value, int offset) {
  uint64_t bits[1] = {};
  std::memcpy(bits, &value, sizeof value);
  emulated::exchange(bits, [&](auto of) { std::memcpy(&value, of(emulated::lane() ^ offset), sizeof value); });
  return value;
}

inline Bf16 rounded(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if (std::isnan(value)) return 0x7fff;
  return static_cast<Bf16>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline unsigned pack2(float low, float high) {
  return rounded(low) | static_cast<unsigned>(rounded(high)) << 16;
}

// The parts of matrices that lanes hold are those of the PTX manual's pictures for ldmatrix and mma.m16n8k16.
template <typename Element>
void load_matrices(unsigned (&to)[4], const Bf16* row, const Element& element_of) {
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0) std::abort();  // as ldmatrix wants it
  emulated::exchange({reinterpret_cast<uint64_t>(row)}, [&](auto of) {
    for (int matrix = 0; matrix < 4; ++matrix) {
      const auto at = [&](int y, int x) {
        return static_cast<unsigned>(reinterpret_cast<const Bf16*>(*of(matrix * 8 + y))[x]);
      };
      to[matrix] = element_of(at, 0) | element_of(at, 1) << 16;
    }
  });
}
inline void load_rows(unsigned (&to)[4], const Bf16* row) {
  const int lane = emulated::lane();
  load_matrices(to, row, [&](const auto& at, int i) { return at(lane / 4, lane % 4 * 2 + i); });
}
inline void load_transposed(unsigned (&to)[4], const Bf16* row) {
  const int lane = emulated::lane();
  load_matrices(to, row, [&](const auto& at, int i) { return at(lane % 4 * 2 + i, lane / 4); });
}

inline void copy_ahead(Bf16* to, const Bf16* from, bool inside) {
  if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from)) % 16 != 0) std::abort();  // as cp.async wants it
  inside ? std::memcpy(to, from, 16) : std::memset(to, 0, 16);
}
inline void wait_for_copies() {}

inline void multiply(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  const int group = emulated::lane() / 4, in_group = emulated::lane() % 4;
  const auto half = [](uint64_t word, int high) {
    const auto bits = static_cast<unsigned>(word);
    return __uint_as_float(high ? bits & 0xffff0000u : bits << 16);
  };
  emulated::exchange({a[0], a[1], a[2], a[3], b0, b1}, [&](auto of) {
    for (int i = 0; i < 4; ++i) {
      const int column = in_group * 2 + i % 2;  // and row group + 8 * (i / 2)
      for (int k = 0; k < 16; ++k) {
        const uint64_t of_a = of(group * 4 + k % 8 / 2)[i / 2 + 2 * (k / 8)];
        const uint64_t of_b = of(column * 4 + k % 8 / 2)[4 + k / 8];
        d[i] += half(of_a, k % 2) * half(of_b, k % 2);
      }
    }
  });
}

}  // namespace lth::device

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunknown-pragmas"
#include "cuda/device/vectors.cu"

#include "cuda/device/normalise.cu"
#include "cuda/device/products.cu"
#include "cuda/device/windows.cu"
#include "cuda/device/head.cu"
#include "cuda/device/batch.cu"
#pragma GCC diagnostic pop
