// One training or evaluation on its own native thread.
#pragma once
#include <atomic>
#include <functional>
#include <string>
#include <thread>

#include "train/metrics.h"

namespace lth {

struct RunEnd {
  enum State { kDone, kPaused, kAborted, kDiverged } state = kDone;
  int64_t step = 0;
  double seconds = 0;
  double loss = 0, accuracy = 0;  // of an evaluation
  int64_t examples = 0;
  // Set instead of the rest when the run threw.
  std::string error_code, error_message;
};

// What the thread is given. Events are called on it and must be quick; `rows` at most every 50 ms.
struct RunEvents {
  std::function<void()> rows;
  std::function<void(const RunEnd&)> end;
};

class Run {
 public:
  using Work = std::function<RunEnd(Run&)>;

  Run(Work work, RunEvents events);
  ~Run() { stop_and_join(); }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  MetricQueue& queue() { return queue_; }
  bool stopping() const { return stop_.load(std::memory_order_relaxed); }
  bool pausing() const { return pause_.load(std::memory_order_relaxed); }
  // The thread ends at the next step, in the middle of an evaluation too.
  void abort();
  // A training ends when at least one update and what belongs to it are done.
  void pause() { pause_.store(true, std::memory_order_relaxed); }
  // Idempotent; may be called from any thread but the run's own.
  void stop_and_join();
  // A row for the consumer, who is told of it by `flush`.
  void push(const MetricRow& row) {
    if (queue_.full()) announce(true);  // else both would wait for one another
    queue_.push(row);
    waiting_ = true;
  }
  // Called at every step: tells the consumer of rows that wait, unless it was told of others less than 50 ms ago.
  void flush() {
    if (waiting_) announce(false);
  }
  // Tells the consumer, at the latest when the run ends.
  void announce(bool now);

 private:
  MetricQueue queue_;
  std::atomic<bool> stop_{false}, pause_{false};
  RunEvents events_;
  double announced_ = -1;
  bool waiting_ = false;  // rows that the consumer was not told of; the run's thread alone looks at it
  std::mutex join_;
  std::thread thread_;
};

// Seconds on a clock that never goes back.
double now_seconds();

}  // namespace lth
