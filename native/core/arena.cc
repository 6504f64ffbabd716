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

std::optional<uint64_t> number_in(const std::string& path) {
  std::ifstream file(path);
  uint64_t number;
  if (file >> number) return number;
  return std::nullopt;  // not there, or "max"
}

// What a control group leaves to its processes; nothing where it has no limit. Cached files give way.
std::optional<uint64_t> left_in_group(const std::string& folder) {
  const auto most = number_in(folder + "/memory.max"), current = number_in(folder + "/memory.current");
  if (!most || !current) return std::nullopt;
  uint64_t cached = 0, number;
  std::ifstream stat(folder + "/memory.stat");
  for (std::string name; stat >> name >> number;) {
    if (name == "active_file" || name == "inactive_file") cached += number;
  }
  const uint64_t used = *current - std::min(*current, cached);
  return *most - std::min(*most, used);
}

// Bytes that can be had before the kernel ends some process for want of memory: of the machine, and of the control groups
// that a container or a batch system put this process in. Nothing where the system does not say.
std::optional<uint64_t> available_memory() {
  std::optional<uint64_t> bytes;
  const auto at_most = [&](std::optional<uint64_t> limit) {
    if (limit) bytes = bytes ? std::min(*bytes, *limit) : *limit;
  };
  std::ifstream meminfo("/proc/meminfo");
  for (std::string line; std::getline(meminfo, line);) {
    unsigned long long kib;
    if (std::sscanf(line.c_str(), "MemAvailable: %llu kB", &kib) == 1) at_most(kib << 10);
  }
  // Its own group and those around it: "0::/job/step".
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    if (line.rfind("0::", 0) != 0) continue;
    for (std::string group = line.substr(3);; group.resize(group.rfind('/'))) {
      at_most(left_in_group("/sys/fs/cgroup" + group));
      if (group.empty() || group.rfind('/') == std::string::npos) break;
    }
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
