#include "train/run.h"

#include <chrono>
#include <exception>

#include "exec/libtorch.h"

namespace lth {

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

Run::Run(Work work, RunEvents events) : events_(std::move(events)) {
  thread_ = std::thread([this, work = std::move(work)] {
    RunEnd end;
    try {
      end = work(*this);
    } catch (...) {
      const Failure failure = failure_of(std::current_exception());
      end.error_code = failure.code;
      end.error_message = failure.message;
    }
    events_.end(end);
  });
}

void Run::abort() {
  stop_.store(true, std::memory_order_relaxed);
  queue_.close();
}

void Run::stop_and_join() {
  abort();
  std::lock_guard lock(join_);
  if (thread_.joinable()) thread_.join();
}

void Run::announce(bool now) {
  constexpr double kInterval = 0.05;
  const double time = now_seconds();
  if (!now && time - announced_ < kInterval) return;
  waiting_ = false;
  announced_ = time;
  events_.rows();
}

}  // namespace lth
