// The parameters of one training, with everything that belongs to them, in flat arenas of one layout.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/snapshot.h"
#include "exec/aten.h"
#include "network/network.h"

namespace lth {

struct ParameterStore {
  // `aten`: the optimiser step goes through ATen, as it must where our kernels do not run.
  ParameterStore(std::shared_ptr<const CompiledNetwork> network, Dtype dtype, at::Device device, bool aten,
                 const std::vector<std::string>& state_names);

  std::shared_ptr<const CompiledNetwork> network;
  Dtype dtype;
  at::Device device;
  bool aten;
  at::Tensor weights;    // (arena) all parameters, gaps +0
  at::Tensor gradients;  // (arena) of the last batch
  struct State {
    std::string name;   // "momentum", "exp_avg", "exp_avg_sq"
    at::Tensor values;  // (arena)
  };
  std::vector<State> optimiser;
  int64_t step = 0;
  // Updates the optimiser state has seen: differs from step where the state was zeroed at the rewind point.
  int64_t optimiser_updates = 0;
  Snapshot::Pending pending;  // the training-loss row that is being summed up
  std::shared_ptr<const Masks> masks;  // never null: all ones when dense
  at::Tensor keep;                     // (arena) bool on the device; only where `aten`

  const ParameterLayout& layout() const { return *network->layout; }
  // The parameter's part of a flat arena, in its own shape (a view).
  at::Tensor view(const at::Tensor& flat, int parameter) const;

  // Draws all weights by their layer's initialisation (paper Figure 2: Gaussian Glorot), biases zero; forgets the
  // optimiser state and the step; applies the masks. draw 0 is the network's own, 1 and up are reinitialisations.
  void initialise(uint64_t seed, uint32_t replicate, uint64_t draw);
  void set_masks(std::shared_ptr<const Masks> masks);
  void load(const Snapshot& snapshot, bool restore_optimiser);
  std::shared_ptr<const Snapshot> snapshot() const;
  std::shared_ptr<const Snapshot> gradient_snapshot() const { return copy_of(gradients); }
  // Another arena of this layout (gradients, scores) as a snapshot's parameters.
  std::shared_ptr<const Snapshot> copy_of(const at::Tensor& arena) const;
  bool finite() const;

 private:
  void apply_masks();
};

}  // namespace lth
