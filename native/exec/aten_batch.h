// What the executors on ATen share: the batch as tensors on the store's device.
#pragma once
#include "exec/executor.h"
#include "exec/forward.h"

namespace lth {

struct TensorBatch {
  at::Tensor x;       // (N, input shape) normalised
  at::Tensor labels;  // (N) int64
};

// Summed loss and right answers of logits' log-softmax (N,K).
BatchResult measure(const at::Tensor& log_p, const at::Tensor& labels);

// Moves the store's running statistics as `how` says.
void move_towards(ParameterStore& store, const std::vector<BatchStatistics>& batch, const Statistics& how);

// The data sets stay on the device once they were used (uint8), so a batch is an index_select there.
class BatchLoader {
 public:
  BatchLoader(const ParameterStore& store, Normaliser normaliser);
  // Of another dtype than a store's.
  BatchLoader(at::TensorOptions options, Normaliser normaliser);
  TensorBatch load(const Batch& batch);

 private:
  struct Resident {
    const Dataset* data;
    at::Tensor images;  // (count, channels, plane) uint8
    at::Tensor labels;  // (count) int64
  };
  Resident& resident(const Dataset* data);
  // (N, channels, plane) uint8 on the device.
  at::Tensor augmented(const Batch& batch) const;

  at::TensorOptions options_;
  at::Tensor scale_, shift_;  // (1, channels, 1)
  std::vector<Resident> residents_;
};

}  // namespace lth
