// Explicit forward and backward through ATen: what `direct` is on CUDA. Activations are as PyTorch keeps
// them.
#include <algorithm>

#include "exec/aten_batch.h"

namespace lth {
namespace {

constexpr int64_t kEvaluationBatch = 1000;

class DirectAten final : public Executor {
 public:
  DirectAten(ParameterStore& store, bool bf16, Normaliser normaliser)
      : store_(store),
        net_(*store.network),
        images_(bf16 ? at::kBFloat16 : store.weights.scalar_type()),
        loader_(store, std::move(normaliser)) {}

  int64_t evaluation_batch() const override { return kEvaluationBatch; }

  BatchResult evaluate(const Batch& batch) override {
    c10::NoGradGuard no_grad;
    const TensorBatch in = loader_.load(batch);
    training_ = false;
    forward(in.x);
    return measure(at::log_softmax(values_[net_.output], 1), in.labels);
  }

  void observe(const Batch& batch, const Statistics& statistics) override {
    c10::NoGradGuard no_grad;
    forward_in_training(loader_.load(batch).x, statistics);
  }

  BatchResult train(const Batch& batch, const Statistics& statistics, Wanted) override {
    c10::NoGradGuard no_grad;
    const TensorBatch in = loader_.load(batch);
    forward_in_training(in.x, statistics);
    const at::Tensor log_p = at::log_softmax(values_[net_.output], 1);
    const BatchResult result = measure(log_p, in.labels);
    // d(mean cross-entropy)/dlogits = (softmax - onehot) / N
    gradients_.assign(net_.values.size(), at::Tensor());
    at::Tensor d = log_p.exp();
    d.scatter_add_(1, in.labels.unsqueeze(1), at::zeros_like(in.labels, log_p.options()).unsqueeze(1) - 1);
    gradients_[net_.output] = d / static_cast<double>(in.labels.size(0));
    for (size_t i = net_.operations.size(); i-- > 0;) backward(net_.operations[i], saved_[i]);
    return result;
  }

 private:
  // What backward needs of an operation beside its input and output.
  struct Saved {
    at::Tensor mean, inverse_deviation;  // batch norm: of the batch
    at::Tensor indices;                  // max pool
  };

  at::Tensor weight(const Operation& op) { return store_.view(store_.weights, op.weight); }
  at::Tensor bias(const Operation& op) { return op.bias >= 0 ? store_.view(store_.weights, op.bias) : at::Tensor(); }
  // The value as rows, where a linear layer reads it flattened.
  at::Tensor rows(int value) { return values_[value].flatten(1).to(store_.weights.scalar_type()); }
  // As a convolution reads them.
  at::Tensor weight_of_images(const Operation& op) { return weight(op).to(images_); }
  at::Tensor bias_of_images(const Operation& op) { return op.bias >= 0 ? bias(op).to(images_) : at::Tensor(); }

  void forward_in_training(const at::Tensor& x, const Statistics& statistics) {
    training_ = true;
    forward(x);
    move_towards(store_, statistics_, statistics);
  }

  void forward(const at::Tensor& x) {
    values_.assign(net_.values.size(), at::Tensor());
    saved_.assign(net_.operations.size(), {});
    statistics_.clear();
    values_[net_.input] = x.dim() == 4 ? x.to(images_) : x;
    for (size_t i = 0; i < net_.operations.size(); ++i) {
      const Operation& op = net_.operations[i];
      at::Tensor y = apply(op, saved_[i]);
      if (op.fused_relu) y = at::relu(y);
      values_[op.output] = y;
    }
  }

  at::Tensor apply(const Operation& op, Saved& saved) {
    const at::Tensor& in = values_[op.inputs[0]];
    switch (op.type) {
      case Operation::kLinear:
        return op.bias >= 0 ? at::addmm(bias(op), rows(op.inputs[0]), weight(op).t())
                            : at::mm(rows(op.inputs[0]), weight(op).t());
      case Operation::kRelu: return at::relu(in);
      case Operation::kConvolution:
        return at::convolution(in, weight_of_images(op), bias_of_images(op), {op.stride.h, op.stride.w}, {op.padding.h, op.padding.w}, {1, 1},
                               false, {0, 0}, 1);
      case Operation::kBatchNorm: {
        const at::Tensor y = normalise(op, in, saved);
        return op.inputs.size() > 1 ? y + values_[op.inputs[1]] : y;
      }
      case Operation::kMaxPool: {
        at::Tensor y;
        std::tie(y, saved.indices) = at::max_pool2d_with_indices(in, {op.kernel.h, op.kernel.w}, {op.stride.h, op.stride.w},
                                                                 {op.padding.h, op.padding.w});
        return y;
      }
      case Operation::kGlobalPool: return in.to(store_.weights.scalar_type()).mean({2, 3});
      case Operation::kFlatten: return rows(op.inputs[0]);
      case Operation::kAdd: break;
    }
    at::Tensor sum = in;
    for (size_t i = 1; i < op.inputs.size(); ++i) sum = sum + values_[op.inputs[i]];
    return sum;
  }

  at::Tensor normalise(const Operation& op, const at::Tensor& in, Saved& saved) {
    const at::Tensor mean = store_.view(store_.weights, op.running_mean);
    const at::Tensor variance = store_.view(store_.weights, op.running_variance);
    at::Tensor y;
    std::tie(y, saved.mean, saved.inverse_deviation) =
        at::native_batch_norm(in, weight(op), bias(op), training_ ? at::Tensor() : mean,
                              training_ ? at::Tensor() : variance, training_, op.momentum, op.epsilon);
    if (training_) {
      const double n = static_cast<double>(in.numel() / in.size(1));
      // The running variance is PyTorch's, the unbiased one.
      const at::Tensor biased = saved.inverse_deviation.pow(-2) - op.epsilon;
      statistics_.push_back(
          {op.running_mean, op.running_variance, op.momentum, saved.mean, biased * (n / std::max(n - 1, 1.0))});
    }
    return y;
  }

  void backward(const Operation& op, const Saved& saved) {
    at::Tensor dy = gradients_[op.output];
    if (op.type == Operation::kRelu || op.fused_relu) dy = at::threshold_backward(dy, values_[op.output], 0);
    const int input = op.inputs[0];
    const at::Tensor& in = values_[input];
    const bool wants_dx = input != net_.input;
    switch (op.type) {
      case Operation::kRelu:
      case Operation::kAdd:
        for (int one : op.inputs) give(one, dy);
        break;
      case Operation::kLinear:
        store_.view(store_.gradients, op.weight).copy_(at::mm(dy.t(), rows(input)));
        if (op.bias >= 0) store_.view(store_.gradients, op.bias).copy_(dy.sum(0));
        if (wants_dx) give(input, at::mm(dy, weight(op)).view(in.sizes()).to(in.scalar_type()));
        break;
      case Operation::kConvolution: {
        const at::IntArrayRef bias_shape = net_.layout->parameters[op.weight].shape[0];
        const auto [dx, dw, db] = at::convolution_backward(
            dy, in, weight_of_images(op), op.bias >= 0 ? c10::OptionalIntArrayRef(bias_shape) : c10::OptionalIntArrayRef(),
            {op.stride.h, op.stride.w}, {op.padding.h, op.padding.w}, {1, 1}, false, {0, 0}, 1,
            {wants_dx, true, op.bias >= 0});
        store_.view(store_.gradients, op.weight).copy_(dw);
        if (op.bias >= 0) store_.view(store_.gradients, op.bias).copy_(db);
        if (wants_dx) give(input, dx);
        break;
      }
      case Operation::kBatchNorm: {
        if (op.inputs.size() > 1) give(op.inputs[1], dy);
        const auto [dx, dw, db] =
            at::native_batch_norm_backward(dy, in, weight(op), at::Tensor(), at::Tensor(), saved.mean,
                                           saved.inverse_deviation, true, op.epsilon, {wants_dx, true, true});
        store_.view(store_.gradients, op.weight).copy_(dw);
        store_.view(store_.gradients, op.bias).copy_(db);
        if (wants_dx) give(input, dx);
        break;
      }
      case Operation::kMaxPool:
        give(input, at::max_pool2d_with_indices_backward(dy, in, {op.kernel.h, op.kernel.w}, {op.stride.h, op.stride.w},
                                                         {op.padding.h, op.padding.w}, {1, 1}, false, saved.indices));
        break;
      case Operation::kFlatten: give(input, dy.view(in.sizes()).to(in.scalar_type())); break;
      case Operation::kGlobalPool: {
        const double places = static_cast<double>(in.size(2) * in.size(3));
        give(input, (dy / places).to(in.scalar_type()).unsqueeze(2).unsqueeze(3).expand(in.sizes()));
        break;
      }
    }
  }

  void give(int value, const at::Tensor& d) {
    if (value == net_.input) return;
    at::Tensor& to = gradients_[value];
    to = to.defined() ? to + d : d;
  }

  ParameterStore& store_;
  const CompiledNetwork& net_;
  const at::ScalarType images_;
  BatchLoader loader_;
  std::vector<at::Tensor> values_, gradients_;
  std::vector<Saved> saved_;
  std::vector<BatchStatistics> statistics_;
  bool training_ = false;
};

}  // namespace

std::unique_ptr<Executor> direct_aten(ParameterStore& store, bool bf16, Normaliser normaliser) {
  return std::make_unique<DirectAten>(store, bf16, std::move(normaliser));
}

}  // namespace lth
