// The CUDA side of the addon. native/cuda/ implements it where LibTorch has CUDA, native/no_cuda/ where it has not.
#pragma once
#include <c10/core/Device.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/memory.h"

namespace lth {

struct CudaInfo {
  bool built = false;
  bool available = false;
  std::vector<std::string> devices;  // cuda:0, ...
  std::vector<std::string> names;    // of each: NVIDIA H100 80GB HBM3
  std::string reason;  // why not; empty where available
};

CudaInfo cuda_info();

// "cpu", "cuda" or "cuda:N". A CUDA device that cannot be used is an error "no-cuda" that tells what to do.
at::Device device_from(const std::string& name);

// What decides bits on a device, as words without spaces: "cuda:NVIDIA-H100-80GB-HBM3
// cudnn=91900 device-kernels=1".
std::string device_words(const at::Device& device);

// What was launched once, to be launched again at the price of one launch: the hundreds of small kernels of an update
// take a CPU longer to start than a GPU to finish.
class LaunchGraph {
 public:
  virtual ~LaunchGraph() = default;
  // On the current stream.
  virtual void replay() = 0;
};

// Records what `work` launches on the current stream, which may not be a device's default one; none of it runs. All it
// reads must be on the device already and stay where it is, and it may wait for nothing. What it allocates belongs to
// the graph, and to all those that share memory with it, as `shares_with` does where it is given: they run one after another,
// on one stream, and what one leaves there is gone once another runs. Memory that this process keeps to use again, on all
// devices, is given back before.
std::unique_ptr<LaunchGraph> record(const std::function<void()>& work, const LaunchGraph* shares_with);

// Memory of the CPU's that the device reads by itself, while the CPU goes on.
const MemorySource& pinned_memory(const at::Device& device);

// How cuDNN's algorithms are chosen. LibTorch keeps it for the whole process, so the first call decides;
// Error("unsupported") where a later one wants the other.
enum class DeviceMode {
  kDeterministic,  // by rule, of those that give the same bits each time
  kFast,           // by the clock, of all
};
void set_device_mode(DeviceMode mode);

}  // namespace lth
