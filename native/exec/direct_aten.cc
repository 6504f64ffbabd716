// Explicit forward and backward through ATen: what `direct` is on CUDA. Activations are (N, features), as PyTorch
// keeps them.
#include "exec/aten_batch.h"

namespace lth {
namespace {

constexpr int64_t kEvaluationBatch = 1000;

class DirectAten final : public Executor {
 public:
  DirectAten(ParameterStore& store, Normaliser normaliser)
      : store_(store), net_(*store.network), loader_(store, std::move(normaliser)) {}

  int64_t evaluation_batch() const override { return kEvaluationBatch; }

  BatchResult evaluate(const Batch& batch) override {
    c10::NoGradGuard no_grad;
    const TensorBatch in = loader_.load(batch);
    forward(in.x);
    return measure(at::log_softmax(values_[net_.output], 1), in.labels);
  }

  BatchResult train(const Batch& batch) override {
    c10::NoGradGuard no_grad;
    const TensorBatch in = loader_.load(batch);
    forward(in.x);
    const at::Tensor log_p = at::log_softmax(values_[net_.output], 1);
    const BatchResult result = measure(log_p, in.labels);
    // d(mean cross-entropy)/dlogits = (softmax - onehot) / N
    gradients_.assign(net_.values.size(), at::Tensor());
    at::Tensor d = log_p.exp();
    d.scatter_add_(1, in.labels.unsqueeze(1), at::zeros_like(in.labels, log_p.options()).unsqueeze(1) - 1);
    gradients_[net_.output] = d / static_cast<double>(in.labels.size(0));
    for (auto op = net_.operations.rbegin(); op != net_.operations.rend(); ++op) backward(*op);
    return result;
  }

 private:
  void forward(const at::Tensor& x) {
    values_.assign(net_.values.size(), at::Tensor());
    values_[net_.input] = x.flatten(1);
    for (const Operation& op : net_.operations) {
      at::Tensor y;
      switch (op.type) {
        case Operation::kLinear: {
          const at::Tensor w = store_.view(store_.weights, op.weight);
          const at::Tensor& in = values_[op.inputs[0]];
          y = op.bias >= 0 ? at::addmm(store_.view(store_.weights, op.bias), in, w.t()) : at::mm(in, w.t());
          if (op.fused_relu) y = at::relu(y);
          break;
        }
        case Operation::kRelu: y = at::relu(values_[op.inputs[0]]); break;
        case Operation::kAdd:
          y = values_[op.inputs[0]];
          for (size_t i = 1; i < op.inputs.size(); ++i) y = y + values_[op.inputs[i]];
          break;
      }
      values_[op.output] = y;
    }
  }

  void backward(const Operation& op) {
    at::Tensor dy = gradients_[op.output];
    if (op.type == Operation::kRelu || op.fused_relu) dy = at::threshold_backward(dy, values_[op.output], 0);
    if (op.type != Operation::kLinear) {
      for (int input : op.inputs) give(input, dy);
      return;
    }
    store_.view(store_.gradients, op.weight).copy_(at::mm(dy.t(), values_[op.inputs[0]]));
    if (op.bias >= 0) store_.view(store_.gradients, op.bias).copy_(dy.sum(0));
    if (op.inputs[0] != net_.input) give(op.inputs[0], at::mm(dy, store_.view(store_.weights, op.weight)));
  }

  void give(int value, const at::Tensor& d) {
    at::Tensor& to = gradients_[value];
    to = to.defined() ? to + d : d;
  }

  ParameterStore& store_;
  const CompiledNetwork& net_;
  BatchLoader loader_;
  std::vector<at::Tensor> values_, gradients_;
};

}  // namespace

std::unique_ptr<Executor> direct_aten(ParameterStore& store, Normaliser normaliser) {
  return std::make_unique<DirectAten>(store, std::move(normaliser));
}

}  // namespace lth
