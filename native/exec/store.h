// The parameters of one training, with everything that belongs to them, in flat arenas of one layout.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/snapshot.h"
#include "exec/aten.h"
#include "core/packing.h"
#include "network/network.h"

namespace lth {

struct ParameterStore {
  // kAten: the optimiser step is made by ATen or on the device, not by the CPU's kernels. kPacked: of pruned tensors
  // gradients and optimiser state are kept of those weights that are left (packing.h), on the CPU alone.
  enum Kind { kAten, kWhole, kPacked };
  ParameterStore(std::shared_ptr<const CompiledNetwork> network, Dtype dtype, at::Device device, Kind kind,
                 const std::vector<std::string>& state_names);

  std::shared_ptr<const CompiledNetwork> network;
  Dtype dtype;
  at::Device device;
  Kind kind;
  // Unless kPacked, none of them ever moves: what is recorded on a device knows them by their addresses.
  at::Tensor weights;    // (arena) all parameters, gaps +0
  at::Tensor left;       // (packing's left_arena) weights of packed tensors, behind one another, as they are in `weights`
  at::Tensor gradients;  // (packing's arena) of the last batch; (arena) where all of them are wanted
  struct State {
    std::string name;   // "momentum", "exp_avg", "exp_avg_sq", "square_avg", "square_avg"
    at::Tensor values;  // (packing's arena)
  };
  std::vector<State> optimiser;
  at::Tensor average;  // (arena) moving averages of all parameters; not defined where none are kept
  int64_t step = 0;
  // Updates the optimiser state has seen: differs from step where the state was zeroed at the rewind point.
  int64_t optimiser_updates = 0;
  Snapshot::Pending pending;  // the training-loss row that is being summed up
  std::shared_ptr<const Masks> masks;  // never null: all ones when dense
  at::Tensor keep;                     // (arena) bool on the device; kAten alone
  at::Tensor decayed;                  // the same of what weight decay is for, where that is not everything
  Packing packing;                     // of the masks at hand; whole unless kPacked

  const ParameterLayout& layout() const { return *network->layout; }
  // The parameter's part of a flat arena, in its own shape (a view).
  at::Tensor view(const at::Tensor& flat, int parameter) const;

  // The part of a parameter in `gradients`, as that is at the moment.
  template <typename T>
  T* gradients_of(int parameter) {
    const int64_t offset = all_gradients_ ? layout().parameters[parameter].offset : packing.parts[parameter].offset;
    return gradients.data_ptr<T>() + offset;
  }
  // Packed gradients of that parameter, or null where all are kept.
  const Packing::Part* packed_gradients(int parameter) const {
    const Packing::Part& part = packing.parts[parameter];
    return part.packed && !all_gradients_ ? &part : nullptr;
  }
  // The weights that are left of a packed tensor, in their order; null of another.
  template <typename T>
  const T* left_of(int parameter) const {
    const Packing::Part& part = packing.parts[parameter];
    return part.packed ? left.const_data_ptr<T>() + part.left : nullptr;
  }
  // The first word of its mask.
  const uint64_t* mask_of(int parameter) const { return masks->words.data() + layout().parameters[parameter].offset / 64; }
  // Room for the gradients of all weights, or of those alone that an update needs.
  void want_gradients(bool all);

  // Draws all weights by their layer's initialisation (paper Figure 2: Gaussian Glorot), biases zero; forgets the
  // optimiser state and the step; applies the masks. draw 0 is the network's own, 1 and up are reinitialisations.
  void initialise(uint64_t seed, uint32_t replicate, uint64_t draw);
  // Says what weight decay is for: once, before the first update.
  void set_decayed(Decayed which);
  // Moving averages are kept from here on; they begin as the weights are.
  void keep_average();
  // What the averages take, with what a swap needs.
  int64_t average_bytes() const;
  // The averages stand in the place of the weights, and these in theirs, as long as one of these lives. Nothing where
  // none are kept.
  class Averaged {
   public:
    explicit Averaged(ParameterStore& store) : store_(store) { store_.swap_average(); }
    ~Averaged() {
      try {
        store_.swap_average();
      } catch (...) {  // of a device that is lost, and the training with it
      }
    }
    Averaged(const Averaged&) = delete;
    Averaged& operator=(const Averaged&) = delete;

   private:
    ParameterStore& store_;
  };
  void set_masks(std::shared_ptr<const Masks> masks);
  void load(const Snapshot& snapshot, bool restore_optimiser);
  std::shared_ptr<const Snapshot> snapshot() const;
  std::shared_ptr<const Snapshot> gradient_snapshot() const { return copy_of(gradients); }
  // Another arena of this layout (gradients, scores) as a snapshot's parameters.
  std::shared_ptr<const Snapshot> copy_of(const at::Tensor& arena) const;
  bool finite() const;

 private:
  void swap_average();
  void apply_masks();
  // `left` as the weights are.
  void pack_weights();
  at::Tensor zeros(int64_t elements) const;
  at::Tensor packed(const at::Tensor& whole, const Packing& as) const;
  at::Tensor unpacked(const at::Tensor& values) const;

  at::Tensor spare_;  // of a swap on a device
  bool all_gradients_ = false;
};

}  // namespace lth
