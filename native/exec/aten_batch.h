// What the executors on ATen share: the batch as tensors on the store's device.
#pragma once
#include <c10/core/Event.h>

#include <map>
#include <optional>

#include "exec/executor.h"
#include "exec/forward.h"

namespace lth {

struct TensorBatch {
  at::Tensor x;       // (N, input shape) normalised
  at::Tensor labels;  // (N) int64
};

// Summed loss and right answers of logits' log-softmax (N,K), as (2) fp64 on the device.
at::Tensor measure(const at::Tensor& log_p, const at::Tensor& labels, double smoothing = 0);
// Waits for the device.
BatchResult read(const at::Tensor& measured);

// What a dropout layer keeps of the batch: (N, elements) uint8 of 0 and 1, on the CPU.
at::Tensor kept_by_dropout(const Batch& batch, int layer, int64_t elements, double probability);

// Moves the store's running statistics as `how` says.
void move_towards(ParameterStore& store, const std::vector<BatchStatistics>& batch, const Statistics& how);

// Data sets in memory stay on the device once they were used (uint8), so a batch is chosen, cropped and flipped there;
// batches that were read for themselves are copied to the same place, one after another.
class BatchLoader {
 public:
  BatchLoader(const ParameterStore& store, Normaliser normaliser);
  // Of another dtype than a store's.
  BatchLoader(at::TensorOptions options, Normaliser normaliser);
  TensorBatch load(const Batch& batch);

  // `load` in two steps, for who records the second: it reads nothing but what the first left on the device, in the same
  // place for every batch of one size.
  void stage(const Batch& batch);
  TensorBatch assemble(const Batch& batch);
  // What `assemble` reads, for who makes the batch otherwise.
  struct Parts {
    at::Tensor images;        // (count, channels, plane) uint8
    at::Tensor labels;        // (count) int64
    at::Tensor where;         // (4, N) int32: row, dy, dx, flip of each example
    at::Tensor scale, shift;  // (1, channels, 1)
  };
  Parts parts(const Batch& batch);

 private:
  struct Resident {
    const Dataset* data;
    at::Tensor images;  // (count, channels, plane) uint8
    at::Tensor labels;  // (count) int64
  };
  // Of a batch size. On the CPU host and device are one tensor.
  struct Copied {
    at::Tensor host, device;
  };
  struct Staged {
    Copied where;  // (4,N) int32: row, dy, dx, flip of each example
    // As a resident's, of batches that were read for themselves.
    at::Tensor images;
    Copied labels;
    std::optional<c10::Event> copied;
  };
  Resident& resident(const Dataset* data);
  Copied room(at::IntArrayRef shape, at::ScalarType type) const;
  // (N, channels, plane) uint8 on the device.
  at::Tensor cropped(const Dataset& data, const at::Tensor& images, const at::Tensor& where) const;

  at::TensorOptions options_;
  at::Tensor scale_, shift_;  // (1, channels, 1)
  std::vector<Resident> residents_;
  std::map<int64_t, Staged> staged_;  // by batch size
};

}  // namespace lth
