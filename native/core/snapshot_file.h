// Snapshots and masks as safetensors: "fc1.weight", "momentum.fc1.weight"; masks as BOOL, one byte a weight.
#pragma once
#include <memory>
#include <string>

#include "core/safetensors.h"
#include "core/snapshot.h"

namespace lth {

// The optimiser's state is left out where nobody will train on: it is twice the size of the weights under Adam. Moving
// averages stay, "average.fc1.weight", for who evaluates.
void write_snapshot(const Snapshot& snapshot, const std::string& path, const Metadata& metadata, bool with_optimiser);
// Every parameter must be there in the layout's shape and in one dtype; nothing else may be.
std::shared_ptr<Snapshot> read_snapshot(std::shared_ptr<const ParameterLayout> layout, const std::string& path);

void write_masks(const Masks& masks, const std::string& path, const Metadata& metadata);
std::shared_ptr<Masks> read_masks(std::shared_ptr<const ParameterLayout> layout, const std::string& path);

}  // namespace lth
