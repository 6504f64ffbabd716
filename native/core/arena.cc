#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <optional>
#include <string>

#include "core/error.h"
#include "core/snapshot.h"

namespace lth {
namespace {

// Less than that is not worth a look at what there is.
constexpr size_t kMuch = size_t{64} << 20;

std::optional<uint64_t> number_in(const char* path) {
  std::ifstream file(path);
  uint64_t number;
  if (file >> number) return number;
  return std::nullopt;  // not there, or "max"
}

// Bytes that can be had before the kernel ends some process for want of memory: of the machine, and of the control group
// that a container or a batch system put this process in. Nothing where the system does not say.
std::optional<uint64_t> available_memory() {
  std::optional<uint64_t> bytes;
  std::ifstream meminfo("/proc/meminfo");
  for (std::string line; std::getline(meminfo, line);) {
    unsigned long long kib;
    if (std::sscanf(line.c_str(), "MemAvailable: %llu kB", &kib) == 1) bytes = kib << 10;
  }
  const auto most = number_in("/sys/fs/cgroup/memory.max"), used = number_in("/sys/fs/cgroup/memory.current");
  if (most && used) {
    const uint64_t left = *most > *used ? *most - *used : 0;
    bytes = bytes ? std::min(*bytes, left) : left;
  }
  return bytes;
}

}  // namespace

Arena::Arena(size_t bytes) : size_(bytes) {
  const size_t rounded = (bytes + 63) / 64 * 64;
  if (rounded == 0) return;
  const auto refuse = [&](const std::string& why) {
    throw Error("io", "[memory] out of memory: wanted " + std::to_string(bytes) + " bytes" + why);
  };
  if (rounded >= kMuch) {
    // Linux gives more than there is, and kills who uses it.
    const auto available = available_memory();
    if (available && rounded > *available) refuse(", " + std::to_string(*available) + " are available");
  }
  data_.reset(static_cast<std::byte*>(std::aligned_alloc(64, rounded)));
  if (!data_) refuse("");
  std::memset(data_.get(), 0, rounded);
}

}  // namespace lth
