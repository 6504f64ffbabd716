// Threads of one session. Work is cut into tasks whose outputs are disjoint and whose arithmetic does not depend
// on who runs them, so the number of threads never changes a bit (design: contract 4).
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

namespace lth {

// Tasks that so many items are cut into.
inline int64_t tasks_for(int64_t items, int64_t per_task) { return (items + per_task - 1) / per_task; }

class Pool {
 public:
  // `threads` counts the caller: threads - 1 workers are started; each calls on_start before its first task.
  // Error("io") where the system gives no more threads.
  explicit Pool(int threads, std::function<void()> on_start = {});
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return threads_; }
  // The number, below threads(), of the thread that runs a task: for memory of its own that tasks use one after another.
  static int thread() { return thread_; }

  // Calls f(task) for task in [0, tasks), fewer than 2^32, on the caller and the workers; returns when all are done.
  // Thread i begins with the i-th part of the tasks, so that the rows of a weight, its gradient and the optimiser's
  // state stay in one core's cache from pass to pass; who is done takes what others have left.
  // f must not throw (the process would end: other workers may be inside it) and must not call parallel; one thread
  // at a time may call this.
  template <typename F>
  void parallel(int64_t tasks, F&& f) {
    if (threads_ == 1 || tasks <= 1) {
      for (int64_t i = 0; i < tasks; ++i) f(i);
      return;
    }
    using Function = std::remove_reference_t<F>;
    run(tasks, [](const void* context, int64_t i) noexcept { (*static_cast<const Function*>(context))(i); },
        std::addressof(f));
  }

 private:
  using Call = void (*)(const void*, int64_t);
  // Tasks [left >> 32, left & 0xffffffff) that nobody has taken.
  struct alignas(64) Share {
    std::atomic<uint64_t> left{0};
  };
  void run(int64_t tasks, Call call, const void* context);
  bool take_from(Share& share, bool first);
  bool take_one(int self);
  bool comes_soon(uint32_t seen) const;
  void work(int self);
  void stop();

  static inline thread_local int thread_ = 0;  // callers are 0

  // The job at hand. Written by the caller while no task is open, read only by who has taken a task of it: an
  // open task keeps the caller inside run, so a late worker can never see a job that has ended.
  Call call_ = nullptr;
  const void* context_ = nullptr;
  int threads_ = 1;
  std::unique_ptr<Share[]> shares_;
  alignas(64) std::atomic<int64_t> unfinished_{0};
  alignas(64) std::atomic<uint32_t> jobs_{0};  // what idle workers watch and sleep on
  std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
};

}  // namespace lth
