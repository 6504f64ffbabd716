// What an update of a network of images in bf16 takes from our own CUDA kernels: batches, the turned weights, pictures folded for
// a first convolution of stride 2, batch norm with its sum and ReLU, biases with theirs, pooling, gradients of weights of few
// channels, the loss. Images are channels-last tensors.
#pragma once
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "cuda/device_kernels.h"
#include "exec/aten_batch.h"
#include "exec/stream_lease.h"

namespace lth {

class ImageKernels {
 public:
  // Null where the store's device has none.
  static std::unique_ptr<ImageKernels> of(ParameterStore& store);
  ImageKernels(ParameterStore& store, const DeviceKernels& kernels);
  ~ImageKernels();

  // Folded, where the network begins with a convolution that `folds`.
  TensorBatch assemble(const BatchLoader::Parts& parts, const Batch& batch) const;
  // Whether this convolution is to be one of stride 1 without padding over x, which is folded, by the folded weights.
  bool folds(const Operation& op, const at::Tensor& x) const { return &op == folded_ && x.size(1) == device::kFolded; }
  const at::Tensor& folded_weight() const { return folded_weight_; }
  // Of the folded weights; goes to the store.
  void folded_gradient(const at::Tensor& gradient) const;

  // Gradients of weights of an update that failed before it joined them.
  void abandon();
  // Before a forward pass: turns all convolutions' weights, to bf16 and channels last, as they are now, and folds some.
  void begin();
  const at::Tensor& weight(const Operation& op) const { return weights_.at(op.weight).to; }

  // A convolution of x, and the gradient of its input; undefined where LibTorch's is the better one. The first also makes the
  // batch's statistics for the batch norm that reads it and comes next to `normalise`, or null, of which the running ones move by
  // `momentum`.
  at::Tensor convolve(const Operation& op, const at::Tensor& x, const Operation* norm, double momentum);
  at::Tensor input_gradient(const Operation& op, const at::Tensor& x, const at::Tensor& dy) const;

  // Whether the two below take this batch norm.
  bool takes(const Operation& op) const;
  // max(norm(x) [+ other], 0), with the batch's statistics; the running ones move by `momentum`.
  at::Tensor normalise(const Operation& op, const at::Tensor& x, const at::Tensor& other, double momentum);
  struct Gradients {
    at::Tensor x, other;
  };
  // Of x and of the other term, with the gradient of y as one tensor or as two; those of scale and shift go to the store.
  Gradients normalise_backward(const Operation& op, const at::Tensor& d0, const at::Tensor& d1, const at::Tensor& x,
                               const at::Tensor& y);

  // Whether the two below take the bias of this convolution and what comes behind it.
  bool activates(const Operation& op) const;
  // x + bias, or max(x + bias, 0).
  at::Tensor activate(const Operation& op, const at::Tensor& x) const;
  // Of x, with the gradient of y as one tensor or as two; that of the bias goes to the store.
  at::Tensor activate_backward(const Operation& op, const at::Tensor& d0, const at::Tensor& d1, const at::Tensor& y);

  // Undefined where LibTorch's is the better one.
  struct Pooled {
    at::Tensor y, which;
  };
  Pooled max_pool(const Operation& op, const at::Tensor& x) const;
  // Of that x, and what it gave.
  at::Tensor max_pool_backward(const Operation& op, const at::Tensor& dy, const at::Tensor& which, const at::Tensor& x) const;

  // The gradient of a convolution's weights, which the store has after `join`; false where LibTorch's is the better one.
  bool weight_gradient(const Operation& op, const at::Tensor& x, const at::Tensor& dy);
  void join();

  // The mean over places, (N, C) in fp32, and its gradient, in the images' type; undefined where LibTorch's is the better one.
  at::Tensor pool(const at::Tensor& x) const;
  at::Tensor pool_backward(const at::Tensor& dy, const at::Tensor& x) const;
  // A linear layer of x (N, C); undefined where LibTorch's is the better one.
  at::Tensor linear(const Operation& op, const at::Tensor& x) const;
  // Its gradients go to the store; gives that of x. Where `linear` gives something.
  at::Tensor linear_backward(const Operation& op, const at::Tensor& x, const at::Tensor& dy) const;

  struct Loss {
    at::Tensor measured;  // as `measure`
    at::Tensor d_logits;  // of the mean loss
  };
  Loss loss(const at::Tensor& logits, const at::Tensor& labels) const;

 private:
  struct Statistics {
    at::Tensor mean, inverse_deviation, scale, offset;  // (C) of the batch; y = x scale + offset
  };
  void wait_for_gradients();
  struct Weights {
    at::Tensor to, back;
  };
  at::Tensor convolve(const Operation& op, const at::Tensor& x, const at::Tensor& weights, Pair padding, int64_t units,
                      const device::Moments* moments) const;
  void sum_gradients(const device::GradientMoments& moments) const;
  // Of a batch norm, but for its x.
  device::Moments moments_of(const Operation& norm, int64_t places, double momentum) const;
  bool few_products(const Operation& op, const at::Tensor& x) const;
  float* vector(const at::Tensor& arena, int parameter) const {
    return arena.data_ptr<float>() + store_.layout().parameters[parameter].offset;
  }

  ParameterStore& store_;
  const DeviceKernels& kernels_;
  std::map<int, Weights> weights_;  // by parameter
  const Operation* folded_ = nullptr;
  device::FoldedWeights folding_{};
  at::Tensor folded_weight_;
  at::Tensor turned_, turn_entries_;
  int turn_count_ = 0;
  unsigned turn_blocks_ = 0;
  std::map<int, Statistics> statistics_;  // by the scale's parameter
  std::set<int> made_;                    // of which the batch's statistics are made, by a convolution
  at::Tensor coefficients_, partial_, counters_, done_;
  at::Tensor ones_, zeros_, unused_;  // (most channels)
  // Gradients of weights are made beside the rest, on a stream of their own: nothing but `join` waits for them.
  StreamLease beside_;
  c10::Event forked_, joined_;
  std::vector<at::Tensor> held_;  // what they read
  // Partial sums of each convolution's weights, by parameter; tables of them, by what they were made of.
  std::map<int, at::Tensor> sums_;
  std::vector<device::Join> joins_;
  std::map<std::vector<int64_t>, at::Tensor> tables_;
};

}  // namespace lth
