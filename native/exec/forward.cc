#include "exec/forward.h"

#include <algorithm>
#include <map>

namespace lth {
namespace {

class Forward {
 public:
  Forward(const CompiledNetwork& network, const std::vector<at::Tensor>& parameters, const ForwardOptions& options)
      : net_(network), parameters_(parameters), options_(options) {
    for (size_t i = 0; i < net_.layout->parameters.size(); ++i) {
      index_[net_.layout->parameters[i].name] = static_cast<int>(i);
    }
  }

  at::Tensor run(const at::Tensor& x) {
    values_["input"] = x;
    at::Tensor last;
    for (const LayerSpec& layer : net_.spec.layers) {
      last = apply(layer, values_.at(layer.inputs[0]));
      values_[layer.name] = last;
    }
    if (options_.auxiliary) {
      for (const AuxiliarySpec& one : net_.spec.auxiliary) options_.auxiliary->push_back(values_.at(one.layer));
    }
    return last;
  }

 private:
  const at::Tensor& parameter(const LayerSpec& layer, const char* name) const {
    return parameters_[index_.at(layer.name + "." + name)];
  }

  at::Tensor bias(const LayerSpec& layer) const { return layer.bias ? parameter(layer, "bias") : at::Tensor(); }

  at::Tensor apply(const LayerSpec& layer, const at::Tensor& in) {
    switch (layer.type) {
      case LayerSpec::kFlatten: return in.flatten(1);
      case LayerSpec::kLinear: return at::linear(in, parameter(layer, "weight"), bias(layer));
      case LayerSpec::kRelu: return at::relu(in);
      case LayerSpec::kConvolution:
        return at::conv2d(in, parameter(layer, "weight"), bias(layer), {layer.stride.h, layer.stride.w},
                          at::IntArrayRef({layer.padding.h, layer.padding.w}));
      case LayerSpec::kBatchNorm: return batch_norm(layer, in);
      case LayerSpec::kMaxPool:
        return at::max_pool2d(in, {layer.kernel.h, layer.kernel.w}, {layer.stride.h, layer.stride.w},
                              {layer.padding.h, layer.padding.w}, {1, 1}, layer.ceil);
      case LayerSpec::kGlobalPool: return in.mean({2, 3});
      case LayerSpec::kAveragePool:
        return at::avg_pool2d(in, {layer.kernel.h, layer.kernel.w}, {layer.stride.h, layer.stride.w},
                              {layer.padding.h, layer.padding.w});
      case LayerSpec::kDropout: return dropout(layer, in);
      case LayerSpec::kConcat: {
        std::vector<at::Tensor> parts;
        for (const std::string& name : layer.inputs) parts.push_back(values_.at(name));
        return at::cat(parts, 1);
      }
      case LayerSpec::kAdd: break;
    }
    at::Tensor sum = in;
    for (size_t i = 1; i < layer.inputs.size(); ++i) sum = sum + values_.at(layer.inputs[i]);
    return sum;
  }

  at::Tensor dropout(const LayerSpec& layer, const at::Tensor& in) {
    const int number = dropouts_++;
    if (!options_.kept) return in;
    const at::Tensor kept = options_.kept(number, in.numel() / in.size(0), layer.probability);
    return in * kept.to(in.options()).view(in.sizes()) / (1 - layer.probability);
  }

  at::Tensor batch_norm(const LayerSpec& layer, const at::Tensor& in) {
    const at::Tensor mean = parameter(layer, "running_mean"), variance = parameter(layer, "running_var");
    if (options_.training && options_.statistics) {
      c10::NoGradGuard no_grad;
      std::vector<int64_t> others = {0};
      for (int64_t d = 2; d < in.dim(); ++d) others.push_back(d);
      const auto [v, m] = at::var_mean(in.detach(), others, /*correction=*/at::Scalar(0));
      // The running variance is PyTorch's, the unbiased one; of a single value it is 0.
      const double n = static_cast<double>(in.numel() / in.size(1));
      options_.statistics->push_back({index_.at(layer.name + ".running_mean"), index_.at(layer.name + ".running_var"),
                                      layer.momentum, m, v * (n / std::max(n - 1, 1.0))});
    }
    const bool training = options_.training;
    return at::batch_norm(in, parameter(layer, "weight"), parameter(layer, "bias"), training ? at::Tensor() : mean,
                          training ? at::Tensor() : variance, training, layer.momentum, layer.epsilon,
                          /*cudnn_enabled=*/true);
  }

  const CompiledNetwork& net_;
  const std::vector<at::Tensor>& parameters_;
  const ForwardOptions& options_;
  std::map<std::string, int> index_;
  std::map<std::string, at::Tensor> values_;
  int dropouts_ = 0;
};

}  // namespace

at::Tensor forward(const CompiledNetwork& network, const at::Tensor& x, const std::vector<at::Tensor>& parameters,
                   const ForwardOptions& options) {
  return Forward(network, parameters, options).run(x);
}

}  // namespace lth
