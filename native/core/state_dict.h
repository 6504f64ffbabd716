// Parameters of another program by name: the state dict of a PyTorch module, saved as safetensors.
#pragma once
#include <memory>
#include <string>

#include "core/snapshot.h"

namespace lth {

// A snapshot at step 0 without an optimiser's state. Tensors are F64, F32, F16 or BF16, each by itself; the snapshot is in fp64
// where one is F64, else in fp32. Names may all begin with "module."; counts of batches ("num_batches_tracked") are left out.
// Error("corrupt-file"); Error("wrong-shape") names what is missing, of another shape, or unknown to the network.
std::shared_ptr<Snapshot> read_state_dict(std::shared_ptr<const ParameterLayout> layout, const std::string& path);

}  // namespace lth
