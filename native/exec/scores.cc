#include "exec/scores.h"

#include <ATen/ops/ones.h>
#include <torch/csrc/autograd/autograd.h>

#include "core/error.h"
#include "exec/forward.h"

namespace lth {
namespace {

// GraSP flattens the softmax (Wang et al. 2020, and paper 4.2), for g and H g alike.
constexpr double kTemperature = 200;

// Copies of a store's parameters as leaves of a graph.
struct Leaves {
  std::vector<at::Tensor> all;       // by index in the layout
  std::vector<at::Tensor> prunable;  // what gradients are asked for
  std::vector<int> parameter;        // their indices

  Leaves(const ParameterStore& store, const at::Tensor& weights) {
    for (size_t i = 0; i < store.layout().parameters.size(); ++i) {
      at::Tensor w = store.view(weights, static_cast<int>(i)).detach();
      if (store.layout().parameters[i].prunable) {
        w.requires_grad_(true);
        prunable.push_back(w);
        parameter.push_back(static_cast<int>(i));
      }
      all.push_back(w);
    }
  }

  // The logits of all heads, the network's own first. Nothing is dropped: scores are of the whole network.
  std::vector<at::Tensor> run(const ParameterStore& store, const at::Tensor& x, bool training) const {
    std::vector<at::Tensor> others;
    std::vector<at::Tensor> heads = {forward(*store.network, x, all, {.training = training, .auxiliary = &others})};
    heads.insert(heads.end(), others.begin(), others.end());
    return heads;
  }
};

// H g of the mean loss at the temperature, by a second backward through g: d(g . constant g)/dw.
std::vector<at::Tensor> hessian_gradient(const at::Tensor& loss, const std::vector<at::Tensor>& weights) {
  const auto g = torch::autograd::grad({loss}, weights, {}, true, true);
  at::Tensor product = at::zeros({}, loss.options());
  for (const at::Tensor& one : g) product = product + (one * one.detach()).sum();
  return torch::autograd::grad({product}, weights);
}

// The mean loss that training has, of logits at a temperature.
at::Tensor loss_of(const CompiledNetwork& network, const std::vector<at::Tensor>& heads, const at::Tensor& labels, double temperature) {
  at::Tensor loss = at::cross_entropy_loss(heads[0] / temperature, labels);
  for (size_t i = 1; i < heads.size(); ++i) {
    loss = loss + at::cross_entropy_loss(heads[i] / temperature, labels) * network.auxiliary[i - 1].weight;
  }
  return loss;
}

std::vector<at::Tensor> of_batch(ScoreMethod method, const CompiledNetwork& network, const std::vector<at::Tensor>& heads,
                                 const at::Tensor& labels, const std::vector<at::Tensor>& weights) {
  std::vector<at::Tensor> out;
  if (method == ScoreMethod::kSnip) {
    const auto g = torch::autograd::grad({loss_of(network, heads, labels, 1)}, weights);
    for (size_t i = 0; i < weights.size(); ++i) out.push_back((weights[i] * g[i]).abs());
    return out;
  }
  const auto hg = hessian_gradient(loss_of(network, heads, labels, kTemperature), weights);
  for (size_t i = 0; i < weights.size(); ++i) {
    const at::Tensor product = weights[i] * hg[i];
    out.push_back(method == ScoreMethod::kGraspAbs ? product.abs() : -product);
  }
  return out;
}

// R of the network whose parameters and running statistics are their absolute values: what the authors' code makes of
// batch norm (Tanaka et al. 2020; theirs takes the absolute value of the whole state).
std::vector<at::Tensor> synaptic_flow(const Leaves& leaves, const ParameterStore& store) {
  std::vector<int64_t> shape = {1};
  shape.insert(shape.end(), store.network->spec.input.begin(), store.network->spec.input.end());
  const at::Tensor ones = at::ones(shape, at::TensorOptions().dtype(at::kDouble).device(store.device));
  at::Tensor sum = at::zeros({}, ones.options());
  for (const at::Tensor& logits : leaves.run(store, ones, false)) sum = sum + logits.sum();
  const auto g = torch::autograd::grad({sum}, leaves.prunable);
  std::vector<at::Tensor> out;
  for (size_t i = 0; i < leaves.prunable.size(); ++i) out.push_back((leaves.prunable[i] * g[i]).abs());
  return out;
}

}  // namespace

ScoreMethod score_method(const std::string& name) {
  if (name == "magnitude") return ScoreMethod::kMagnitude;
  if (name == "snip") return ScoreMethod::kSnip;
  if (name == "grasp") return ScoreMethod::kGrasp;
  if (name == "grasp-abs") return ScoreMethod::kGraspAbs;
  if (name == "synflow") return ScoreMethod::kSynflow;
  throw Error("invalid-argument",
              "[scores] method: expected magnitude, snip, grasp, grasp-abs or synflow but received " + name);
}

bool needs_examples(ScoreMethod method) {
  return method != ScoreMethod::kMagnitude && method != ScoreMethod::kSynflow;
}

at::Tensor scores(ScoreMethod method, const ParameterStore& store, const Normaliser& normaliser,
                  const std::function<std::optional<Batch>()>& next) {
  const auto options = at::TensorOptions().dtype(at::kDouble).device(store.device);
  const at::Tensor weights = store.weights.to(at::kDouble);
  at::Tensor sum = at::zeros({store.layout().arena}, options);
  const auto add = [&](const Leaves& leaves, const std::vector<at::Tensor>& values) {
    c10::NoGradGuard no_grad;
    for (size_t i = 0; i < values.size(); ++i) store.view(sum, leaves.parameter[i]).add_(values[i].detach());
  };
  switch (method) {
    case ScoreMethod::kMagnitude: {
      const Leaves leaves(store, weights.abs());
      add(leaves, leaves.prunable);
      return sum;
    }
    case ScoreMethod::kSynflow: {
      const Leaves leaves(store, weights.abs());
      add(leaves, synaptic_flow(leaves, store));
      return sum;
    }
    default: {
      BatchLoader loader(options, normaliser);
      const Leaves leaves(store, weights);
      int64_t batches = 0;
      for (std::optional<Batch> batch = next(); batch; batch = next(), ++batches) {
        const TensorBatch in = loader.load(*batch);
        // The batch's own statistics; the running ones stay as they are.
        add(leaves, of_batch(method, *store.network, leaves.run(store, in.x, true), in.labels, leaves.prunable));
      }
      return sum / static_cast<double>(batches);
    }
  }
}

}  // namespace lth
