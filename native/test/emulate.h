// Runs kernels of native/cuda/device on the CPU: every thread of a block is a fiber that goes on to the next place where it
// waits for others; blocks run one after the other. Shared memory keeps what the block
// before left there.
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
#define __device__
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

struct Thread {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  Three index;
  bool ended = false;
};

inline constexpr size_t kStack = 96 * 1024;
inline std::vector<Thread> threads;
inline Thread* current = nullptr;
inline ucontext_t scheduler;
inline Three block, grid;
inline Barrier of_block;
inline std::vector<Barrier> of_warp;
inline const std::function<void()>* body = nullptr;
// What each thread shows the others of its warp.
inline uint64_t shown[device::kThreads][6];

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
  while (barrier.generation == generation) yield();
}
inline void wait_for_block() { wait(of_block, static_cast<int>(threads.size())); }
inline void wait_for_warp() { wait(of_warp[static_cast<size_t>(warp())], 32); }

// All lanes of a warp show some words; then `look` may read those of another. They go on together.
template <size_t N, typename Look>
void exchange(const uint64_t (&words)[N], const Look& look) {
  static_assert(N <= 6);
  std::memcpy(shown[current->index.x], words, sizeof words);
  wait_for_warp();
  look([](int other) -> const uint64_t* { return shown[warp() * 32 + other]; });
  wait_for_warp();
}

inline void start() {
  (*body)();
  current->ended = true;
  yield();
}

// kernel(parameters) in every thread of every block.
inline void launch(const device::Grid& shape, const std::function<void()>& kernel) {
  constexpr int kThreads = device::kThreads;
  grid = {shape.x, shape.y, shape.z};
  body = &kernel;
  for (block.z = 0; block.z < shape.z; ++block.z) {
    for (block.y = 0; block.y < shape.y; ++block.y) {
      for (block.x = 0; block.x < shape.x; ++block.x) {
        threads.resize(kThreads);
        of_warp.assign(kThreads / 32, {});
        of_block = {};
        for (int i = 0; i < kThreads; ++i) {
          Thread& thread = threads[static_cast<size_t>(i)];
          if (!thread.stack) thread.stack = std::make_unique<char[]>(kStack);
          getcontext(&thread.context);
          thread.context.uc_stack = {.ss_sp = thread.stack.get(), .ss_flags = 0, .ss_size = kStack};
          thread.context.uc_link = nullptr;
          thread.index = {static_cast<unsigned>(i), 0, 0};
          thread.ended = false;
          makecontext(&thread.context, start, 0);
        }
        for (bool more = true; more;) {
          more = false;
          for (Thread& thread : threads) {
            if (thread.ended) continue;
            current = &thread;
            swapcontext(&scheduler, &thread.context);
            more = true;
          }
        }
      }
    }
  }
}

}  // namespace lth::emulated

#define threadIdx (::lth::emulated::current->index)
#define blockIdx (::lth::emulated::block)
#define gridDim (::lth::emulated::grid)

namespace lth::device {

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
inline void load_transposed(unsigned (&to)[4], const Bf16* row) {
  const int lane = emulated::lane();
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0) std::abort();  // as ldmatrix wants it
  emulated::exchange({reinterpret_cast<uint64_t>(row)}, [&](auto of) {
    for (int matrix = 0; matrix < 4; ++matrix) {
      const auto element = [&](int i) {
        return static_cast<unsigned>(reinterpret_cast<const Bf16*>(*of(matrix * 8 + lane % 4 * 2 + i))[lane / 4]);
      };
      to[matrix] = element(0) | element(1) << 16;
    }
  });
}

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
#include "cuda/device/kernels.cu"
#pragma GCC diagnostic pop
