#include "core/pool.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <string>
#include <system_error>

#include "core/error.h"

namespace lth {
namespace {

inline void relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");  // some 10 ns; `yield` is a no-op on most cores
#endif
}

// A worker looks for the next job for some 30 us before it sleeps: the gaps inside a training step are shorter, and
// waking a sleeper costs as much as a small layer.
constexpr int kSpins = 600;

}  // namespace

Pool::Pool(int threads, std::function<void()> on_start) {
  try {
    for (int i = 1; i < threads; ++i) {
      workers_.emplace_back([this, on_start] {
        if (on_start) on_start();
        work();
      });
    }
  } catch (const std::system_error& error) {
    stop();  // the destructor of a running std::thread would end the process
    throw Error("io", "[threads] cannot start thread " + std::to_string(workers_.size() + 2) + " of " +
                          std::to_string(threads) + ": " + error.what());
  }
}

Pool::~Pool() { stop(); }

void Pool::stop() {
  stop_.store(true);
  jobs_.fetch_add(1);
  jobs_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

bool Pool::take_one() {
  int64_t left = untaken_.load(std::memory_order_acquire);
  do {
    if (left <= 0) return false;
  } while (!untaken_.compare_exchange_weak(left, left - 1, std::memory_order_acquire));
  call_(context_, left - 1);
  unfinished_.fetch_sub(1, std::memory_order_acq_rel);
  return true;
}

void Pool::run(int64_t tasks, Call call, const void* context) {
  call_ = call;
  context_ = context;
  unfinished_.store(tasks, std::memory_order_relaxed);
  untaken_.store(tasks, std::memory_order_release);
  jobs_.fetch_add(1);
  jobs_.notify_all();
  while (take_one()) {
  }
  for (int spins = 0; unfinished_.load(std::memory_order_acquire) != 0; ++spins) {
    relax();
    // With more threads than cores the last task's owner may be waiting for this very core.
    if (spins > 4 * kSpins) std::this_thread::yield();
  }
}

void Pool::work() {
  while (!stop_.load(std::memory_order_relaxed)) {
    const uint32_t seen = jobs_.load();
    int spins = 0;
    while (spins < kSpins) {
      if (take_one()) {
        spins = 0;
      } else {
        relax();
        ++spins;
      }
    }
    if (jobs_.load() == seen && !stop_.load()) jobs_.wait(seen);
  }
}

}  // namespace lth
