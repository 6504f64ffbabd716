// Rows on their way from the training thread to JavaScript: bounded, nothing is ever dropped.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

namespace lth {

enum class SplitName : int8_t { kTrain = 0, kValidation = 1, kTest = 2 };

// Columns, as Arrow wants them.
struct MetricRows {
  std::vector<int32_t> step;
  std::vector<int8_t> split;
  std::vector<double> loss, accuracy, learning_rate;
  std::vector<double> examples;  // whole numbers, and possibly more than an int32 holds
  std::vector<double> seconds;
};

struct MetricRow {
  int64_t step;
  SplitName split;
  double loss, accuracy, learning_rate;
  int64_t examples;
  double seconds;
};

class MetricQueue {
 public:
  static constexpr size_t kCapacity = 65536;

  // Blocks while the queue is full (the consumer decides the pace), unless closed.
  void push(const MetricRow& row) {
    std::unique_lock lock(mutex_);
    room_.wait(lock, [&] { return rows_->step.size() < kCapacity || closed_; });
    rows_->step.push_back(static_cast<int32_t>(row.step));
    rows_->split.push_back(static_cast<int8_t>(row.split));
    rows_->loss.push_back(row.loss);
    rows_->accuracy.push_back(row.accuracy);
    rows_->learning_rate.push_back(row.learning_rate);
    rows_->examples.push_back(static_cast<double>(row.examples));
    rows_->seconds.push_back(row.seconds);
  }

  bool full() {
    std::lock_guard lock(mutex_);
    return rows_->step.size() >= kCapacity;
  }

  // Everything that waits, or null.
  std::shared_ptr<MetricRows> drain() {
    std::lock_guard lock(mutex_);
    if (rows_->step.empty()) return nullptr;
    auto full = std::move(rows_);
    rows_ = std::make_shared<MetricRows>();
    room_.notify_all();
    return full;
  }

  // From now on push never blocks: the training is being stopped.
  void close() {
    std::lock_guard lock(mutex_);
    closed_ = true;
    room_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable room_;
  std::shared_ptr<MetricRows> rows_ = std::make_shared<MetricRows>();
  bool closed_ = false;
};

}  // namespace lth
