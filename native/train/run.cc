#include "train/run.h"

#include <chrono>
#include <exception>

#include "core/error.h"

namespace lth {

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

Run::Run(Work work, RunEvents events) : events_(std::move(events)) {
  thread_ = std::thread([this, work = std::move(work)] {
    RunEnd end;
    try {
      end = work(*this);
    } catch (const Error& error) {
      end.error_code = error.code();
      end.error_message = error.what();
    } catch (const std::exception& error) {  // LibTorch's own: out of memory, a device that failed
      end.error_code = "native";
      end.error_message = error.what();
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
  announced_ = time;
  events_.rows();
}

}  // namespace lth
