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

Pool::Pool(int threads, std::function<void()> on_start) : shares_(std::make_unique<Share[]>(threads)) {
  // The workers look at `threads_`, not at a vector that is still growing.
  threads_ = threads;
  try {
    for (int i = 1; i < threads; ++i) {
      workers_.emplace_back([this, i, on_start] {
        if (on_start) on_start();
        work(i);
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

// Takes the first task that is left of `share`, or the last; false where none is.
bool Pool::take_from(Share& share, bool first) {
  uint64_t left = share.left.load(std::memory_order_acquire);
  uint32_t begin, end;
  do {
    begin = static_cast<uint32_t>(left >> 32);
    end = static_cast<uint32_t>(left);
    if (begin >= end) return false;
    first ? ++begin : --end;
  } while (!share.left.compare_exchange_weak(left, uint64_t{begin} << 32 | end, std::memory_order_acquire));
  call_(context_, first ? begin - 1 : end);
  unfinished_.fetch_sub(1, std::memory_order_acq_rel);
  return true;
}

// A thread's own share first, then what others have not come to, from its far end.
bool Pool::take_one(int self) {
  if (take_from(shares_[self], true)) return true;
  for (int i = 1; i < threads_; ++i) {
    if (take_from(shares_[(self + i) % threads_], false)) return true;
  }
  return false;
}

void Pool::run(int64_t tasks, Call call, const void* context) {
  call_ = call;
  context_ = context;
  unfinished_.store(tasks, std::memory_order_relaxed);
  for (int64_t i = 0; i < threads_; ++i) {
    const auto begin = static_cast<uint64_t>(tasks * i / threads_), end = static_cast<uint64_t>(tasks * (i + 1) / threads_);
    shares_[i].left.store(begin << 32 | end, std::memory_order_release);
  }
  jobs_.fetch_add(1);
  jobs_.notify_all();
  while (take_one(0)) {
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

// Looks for a job after `seen` for kSpin.
bool Pool::comes_soon(uint32_t seen) const {
  const Clock::time_point start = Clock::now();
  for (int pauses = 1; jobs_.load(std::memory_order_acquire) == seen; ++pauses) {
    relax();
    if (pauses % kPausesPerLook == 0 && Clock::now() - start > kSpin) return false;
  }
  return true;
}

void Pool::work(int self) {
  thread_ = self;
  for (;;) {
    // A job is counted when all its tasks are there, and stop counts as one: whatever comes later than `seen` wakes us.
    const uint32_t seen = jobs_.load(std::memory_order_acquire);
    if (stop_.load()) return;
    while (take_one(self)) {
    }
    if (!comes_soon(seen)) jobs_.wait(seen);
  }
}

}  // namespace lth
