#include "core/pool.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <chrono>
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

using Clock = std::chrono::steady_clock;

// A worker looks for the next job for so long before it sleeps: the gaps inside a training step are shorter, and waking
// a sleeper costs as much as a small layer. By the clock, because a pause takes 10 ns on one CPU and 50 on another.
constexpr std::chrono::microseconds kSpin{30};
constexpr int kPausesPerLook = 64;  // at the clock

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
  // With more threads than cores the last task's owner may be waiting for this very core.
  const Clock::time_point start = Clock::now();
  for (int pauses = 0; unfinished_.load(std::memory_order_acquire) != 0;) {
    relax();
    if (++pauses < kPausesPerLook) continue;
    if (Clock::now() - start > kSpin) std::this_thread::yield();
    pauses = 0;
  }
}

// Takes tasks until none has come for kSpin.
void Pool::take_all() {
  Clock::time_point idle = Clock::now();
  for (int pauses = 0;;) {
    if (take_one()) {
      idle = Clock::now();
      pauses = 0;
      continue;
    }
    relax();
    if (++pauses < kPausesPerLook) continue;
    if (Clock::now() - idle > kSpin) return;
    pauses = 0;
  }
}

void Pool::work() {
  while (!stop_.load(std::memory_order_relaxed)) {
    const uint32_t seen = jobs_.load();
    take_all();
    if (jobs_.load() == seen && !stop_.load()) jobs_.wait(seen);
  }
}

}  // namespace lth
