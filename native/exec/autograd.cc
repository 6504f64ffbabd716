// The oracle: the same description, layer by layer through LibTorch's autograd, in any dtype and on any device. It
// reads the layers, not the compiled operations, so that a wrong fusion or buffer cannot be wrong in both.
#include <torch/csrc/autograd/autograd.h>

#include "exec/aten_batch.h"
#include "exec/forward.h"

namespace lth {
namespace {

constexpr int64_t kEvaluationBatch = 1000;

class Autograd final : public Executor {
 public:
  Autograd(ParameterStore& store, Normaliser normaliser)
      : store_(store), loader_(store, std::move(normaliser)) {}

  int64_t evaluation_batch() const override { return kEvaluationBatch; }

  BatchResult evaluate(const Batch& batch) override {
    c10::NoGradGuard no_grad;
    const TensorBatch in = loader_.load(batch);
    std::vector<at::Tensor> leaves;
    return measure(at::log_softmax(forward(in.x, leaves), 1), in.labels);
  }

  BatchResult train(const Batch& batch) override {
    const TensorBatch in = loader_.load(batch);
    std::vector<at::Tensor> leaves;
    const at::Tensor logits = forward(in.x, leaves);
    const at::Tensor loss = at::cross_entropy_loss(logits, in.labels);
    const auto gradients = torch::autograd::grad({loss}, leaves);
    c10::NoGradGuard no_grad;
    for (size_t i = 0; i < leaves.size(); ++i) store_.view(store_.gradients, used_[i]).copy_(gradients[i]);
    return measure(at::log_softmax(logits.detach(), 1), in.labels);
  }

 private:
  at::Tensor forward(const at::Tensor& x, std::vector<at::Tensor>& leaves) {
    used_.clear();
    return lth::forward(*store_.network, x, [&](int parameter) {
      at::Tensor w = store_.view(store_.weights, parameter).detach();
      w.requires_grad_(c10::GradMode::is_enabled());
      used_.push_back(parameter);
      leaves.push_back(w);
      return w;
    });
  }

  ParameterStore& store_;
  BatchLoader loader_;
  std::vector<int> used_;  // parameters of the leaves, in their order
};

}  // namespace

std::unique_ptr<Executor> autograd(ParameterStore& store, Normaliser normaliser) {
  return std::make_unique<Autograd>(store, std::move(normaliser));
}

}  // namespace lth
