#include "exec/forward.h"

#include <map>
#include <string>

namespace lth {

at::Tensor forward(const CompiledNetwork& network, const at::Tensor& x,
                   const std::function<at::Tensor(int)>& parameter) {
  std::map<std::string, int> index;
  for (size_t i = 0; i < network.layout->parameters.size(); ++i) {
    index[network.layout->parameters[i].name] = static_cast<int>(i);
  }
  const auto named = [&](const std::string& name) { return parameter(index.at(name)); };
  std::map<std::string, at::Tensor> values{{"input", x}};
  at::Tensor last;
  for (const LayerSpec& layer : network.spec.layers) {
    const at::Tensor in = values.at(layer.inputs[0]);
    switch (layer.type) {
      case LayerSpec::kFlatten: last = in.flatten(1); break;
      case LayerSpec::kLinear: {
        const at::Tensor w = named(layer.name + ".weight");
        last = layer.bias ? at::linear(in, w, named(layer.name + ".bias")) : at::linear(in, w);
        break;
      }
      case LayerSpec::kRelu: last = at::relu(in); break;
      case LayerSpec::kAdd:
        last = in;
        for (size_t i = 1; i < layer.inputs.size(); ++i) last = last + values.at(layer.inputs[i]);
        break;
    }
    values[layer.name] = last;
  }
  return last;
}

}  // namespace lth
