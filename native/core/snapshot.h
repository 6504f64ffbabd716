// Immutable copies of a training's state, and masks. Both are shared by pointer and never change.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "core/layout.h"

namespace lth {

enum class Dtype { kFloat32, kFloat64 };
inline int64_t bytes_of(Dtype dtype) { return dtype == Dtype::kFloat32 ? 4 : 8; }

// 64-byte aligned, zero-initialised memory.
class Arena {
 public:
  Arena() = default;
  explicit Arena(size_t bytes);  // throws Error("io") "out of memory" when it cannot be had
  // Memory that belongs to someone else (pinned memory of LibTorch); `free` is called at the end.
  Arena(std::byte* data, size_t bytes, std::function<void()> free) : data_(data, {std::move(free)}), size_(bytes) {}
  std::byte* data() const { return data_.get(); }
  size_t size() const { return size_; }

 private:
  struct Free {
    std::function<void()> owner;
    void operator()(std::byte* p) const {
      if (owner) {
        owner();
      } else {
        std::free(p);
      }
    }
  };
  std::unique_ptr<std::byte, Free> data_;
  size_t size_ = 0;
};

// Weights and optimiser state at one step (paper 1.3: everything learnable, and what the optimiser remembers).
struct Snapshot {
  std::shared_ptr<const ParameterLayout> layout;
  Dtype dtype = Dtype::kFloat32;
  int64_t step = 0;
  // Updates the optimiser state has seen: differs from step where it was zeroed at the rewind point.
  int64_t optimiser_updates = 0;
  // What the metrics still owe: with it, rows do not depend on where a training was cut in two. The "train" row that
  // was being summed up, and
  struct Pending {
    double loss = 0;
    int64_t correct = 0, seen = 0;
    // The evaluation at this step was stopped: it is made before the next update.
    bool evaluation = false;
  } pending;
  Arena parameters;  // layout->arena elements
  struct State {
    std::string name;  // "momentum", "exp_avg", "exp_avg_sq", "square_avg"
    Arena values;      // layout->arena elements
  };
  std::vector<State> optimiser;
  // Moving averages of all parameters, running statistics too: layout->arena elements, or none where none are kept.
  Arena average;

  size_t bytes() const {
    size_t sum = parameters.size() + average.size();
    for (const State& state : optimiser) sum += state.values.size();
    return sum;
  }
};

// Bits of the prunable parameters, in the layout's offsets (bit i of the arena is weight i). Bits of parameters
// that are not prunable are ones; bits of the gaps are zeros.
struct Masks {
  std::shared_ptr<const ParameterLayout> layout;
  std::vector<uint64_t> words;     // layout->arena / 64
  std::vector<int64_t> remaining;  // per parameter; its size where it is not prunable
};

}  // namespace lth
