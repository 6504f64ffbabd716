#pragma once
#include <c10/core/Stream.h>

#include <optional>

namespace lth {

// A stream of a device that nobody else in this process has: LibTorch hands out the same few in turn, and of two
// sessions on one stream one would be recorded with the other's updates.
class StreamLease {
 public:
  explicit StreamLease(const c10::Device& device);
  ~StreamLease();
  StreamLease(const StreamLease&) = delete;
  StreamLease& operator=(const StreamLease&) = delete;
  const c10::Stream& stream() const { return *stream_; }

 private:
  std::optional<c10::Stream> stream_;
};

}  // namespace lth
