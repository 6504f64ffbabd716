// The gradients of images: which buffer holds which of them is planned once, in the order in which the backward pass makes
// and uses them, so that a few buffers serve a whole network and stay in the cache.
//
// While the pass is planned, an operation takes the buffers that were given to its output, and gives buffers to its
// inputs; its steps, which run later and in the same order for each slice, have their numbers. A buffer may be given to
// several values: who writes to it must be its only user.
#pragma once
#include <algorithm>
#include <utility>
#include <vector>

#include "exec/images/values.h"

namespace lth {

template <typename S>
class ImageGradients {
 public:
  explicit ImageGradients(Values<S>& values) : v_(values), given_(values.values.size()) {}

  // ---- Planning

  int acquire(int value) {
    const int64_t size = v_.values[value].elements;
    int best = -1;
    for (int i = 0; i < static_cast<int>(buffers_.size()); ++i) {
      if (buffers_[i].users > 0 || buffers_[i].whole >= 0) continue;
      // The one that must grow or shrink least.
      if (best < 0 || std::abs(buffers_[i].size - size) < std::abs(buffers_[best].size - size)) best = i;
    }
    if (best < 0 || buffers_[best].size < size / 2) {
      best = static_cast<int>(buffers_.size());
      buffers_.emplace_back();
    }
    buffers_[best].size = std::max(buffers_[best].size, size);
    buffers_[best].users = 1;
    return best;
  }

  void release(int buffer) {
    if (--buffers_[buffer].users == 0 && buffers_[buffer].whole >= 0) release(buffers_[buffer].whole);
  }
  void share(int buffer) { ++buffers_[buffer].users; }
  bool mine_alone(int buffer) const { return buffers_[buffer].users == 1 && !buffers_[buffer].shared; }

  // A buffer that is part of another, in the gradient of a value from this channel on; `shared`: others than its parts read
  // that one.
  int part(int buffer, int value, int64_t channel, bool shared) {
    share(buffer);
    Buffer& one = buffers_.emplace_back();
    one.users = 1;
    one.whole = buffer;
    one.offset = v_.offset_of(value, channel);
    one.shared = shared;
    return static_cast<int>(buffers_.size()) - 1;
  }

  void give(int value, int buffer) {
    if (value == v_.net.input) {
      release(buffer);
    } else {
      given_[value].push_back(buffer);
    }
  }

  std::vector<int> take(int value) { return std::exchange(given_[value], {}); }

  // Planned: nothing more is acquired.
  void make() {
    for (Buffer& b : buffers_) {
      if (b.whole < 0) b.storage = Arena(static_cast<size_t>(b.size * v_.training_slices) * sizeof(S));
    }
  }

  // ---- Running

  S* at(int buffer, int64_t slice) {
    const Buffer& b = buffers_[buffer];
    return b.whole >= 0 ? at(b.whole, slice) + b.offset : as<S>(b.storage) + slice * b.size;
  }

 private:
  struct Buffer {
    int64_t size = 0;  // elements of a slice
    int users = 0;
    Arena storage;
    int whole = -1;  // what it is part of
    int64_t offset = 0;
    bool shared = false;
  };

  Values<S>& v_;
  std::vector<std::vector<int>> given_;  // per value
  std::vector<Buffer> buffers_;
};

}  // namespace lth
