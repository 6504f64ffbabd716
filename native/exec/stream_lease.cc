#include "exec/stream_lease.h"

#include <c10/core/impl/VirtualGuardImpl.h>

#include <mutex>
#include <set>
#include <string>

#include "core/error.h"

namespace lth {
namespace {
std::mutex leased_mutex;
std::set<std::pair<int, c10::StreamId>> leased;  // device, stream
}  // namespace

StreamLease::StreamLease(const c10::Device& device) {
  constexpr int kTries = 256;  // more than LibTorch has
  const c10::impl::VirtualGuardImpl guard(device.type());
  const std::lock_guard lock(leased_mutex);
  for (int i = 0; i < kTries; ++i) {
    const c10::Stream stream = guard.getStreamFromGlobalPool(device);
    if (!leased.emplace(device.index(), stream.id()).second) continue;
    stream_ = stream;
    return;
  }
  throw Error("unsupported", "[session] " + std::to_string(leased.size()) +
                                 " streams of this process are in use, one or two of each session on its devices, and "
                                 "LibTorch has no more: dispose of some sessions");
}

StreamLease::~StreamLease() {
  const std::lock_guard lock(leased_mutex);
  leased.erase({stream_->device_index(), stream_->id()});
}

}  // namespace lth
