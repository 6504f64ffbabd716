// The oracle: the same description, layer by layer through LibTorch's autograd, in any dtype and on any device.
#include <torch/csrc/autograd/autograd.h>

#include "exec/aten_batch.h"
#include "exec/forward.h"

namespace lth {
namespace {

constexpr int64_t kEvaluationBatch = 1000;

class Autograd final : public Executor {
 public:
  Autograd(ParameterStore& store, Normaliser normaliser)
      : store_(store), net_(*store.network), loader_(store, std::move(normaliser)) {}

  int64_t evaluation_batch() const override { return kEvaluationBatch; }

  BatchResult evaluate(const Batch& batch) override {
    c10::NoGradGuard no_grad;
    const TensorBatch in = loader_.load(batch);
    return read(measure(at::log_softmax(forward(net_, in.x, views(), {}), 1), in.labels));
  }

  void observe(const Batch& batch, const Statistics& statistics) override {
    c10::NoGradGuard no_grad;
    std::vector<BatchStatistics> of_batch;
    forward(net_, loader_.load(batch).x, views(), {.training = true, .statistics = &of_batch});
    move_towards(store_, of_batch, statistics);
  }

  BatchResult train(const Batch& batch, const Statistics& statistics, Wanted) override {
    const TensorBatch in = loader_.load(batch);
    const std::vector<at::Tensor> parameters = views();
    std::vector<at::Tensor> leaves;
    std::vector<int> indices;
    for (size_t i = 0; i < parameters.size(); ++i) {
      if (!net_.layout->parameters[i].trainable) continue;
      leaves.push_back(parameters[i].requires_grad_(true));
      indices.push_back(static_cast<int>(i));
    }
    std::vector<BatchStatistics> of_batch;
    std::vector<at::Tensor> others;
    ForwardOptions options = {.training = true, .statistics = &of_batch, .auxiliary = &others};
    if (batch.dropout) {
      options.kept = [&](int layer, int64_t elements, double p) { return kept_by_dropout(batch, layer, elements, p); };
    }
    const at::Tensor logits = forward(net_, in.x, parameters, options);
    const auto of = [&](const at::Tensor& one) {
      return at::cross_entropy_loss(one, in.labels, /*weight=*/{}, at::Reduction::Mean, /*ignore_index=*/-100, batch.smoothing);
    };
    at::Tensor loss = of(logits);
    for (size_t i = 0; i < others.size(); ++i) loss = loss + of(others[i]) * net_.auxiliary[i].weight;
    const auto gradients = torch::autograd::grad({loss}, leaves);
    c10::NoGradGuard no_grad;
    for (size_t i = 0; i < leaves.size(); ++i) store_.view(store_.gradients, indices[i]).copy_(gradients[i]);
    move_towards(store_, of_batch, statistics);
    BatchResult result = read(measure(at::log_softmax(logits.detach(), 1), in.labels, batch.smoothing));
    for (size_t i = 0; i < others.size(); ++i) {
      result.loss += net_.auxiliary[i].weight * read(measure(at::log_softmax(others[i].detach(), 1), in.labels, batch.smoothing)).loss;
    }
    return result;
  }

 private:
  std::vector<at::Tensor> views() const {
    std::vector<at::Tensor> all;
    for (size_t i = 0; i < net_.layout->parameters.size(); ++i) {
      all.push_back(store_.view(store_.weights, static_cast<int>(i)).detach());
    }
    return all;
  }

  ParameterStore& store_;
  const CompiledNetwork& net_;
  BatchLoader loader_;
};

}  // namespace

std::unique_ptr<Executor> autograd(ParameterStore& store, Normaliser normaliser) {
  return std::make_unique<Autograd>(store, std::move(normaliser));
}

}  // namespace lth
