// Small networks that several tests build.
#pragma once
#include <cstring>
#include <utility>

#include "core/random.h"
#include "network/network.h"
#include "core/snapshot.h"

namespace lth::test {

inline LayerSpec layer(LayerSpec::Type type, std::string name, std::vector<std::string> inputs,
                       int64_t units = 0) {
  LayerSpec l;
  l.type = type;
  l.name = std::move(name);
  l.inputs = std::move(inputs);
  l.units = units;
  return l;
}

// flatten, fc1, relu1, ..., fcN as torchvision would name them: widths are those of the hidden layers.
inline NetworkSpec lenet(std::vector<int64_t> widths, std::vector<int64_t> input = {1, 28, 28},
                         int classes = 10) {
  NetworkSpec spec{"lenet", std::move(input), classes, {layer(LayerSpec::kFlatten, "flatten", {"input"})}};
  std::string before = "flatten";
  for (size_t i = 0; i < widths.size(); ++i) {
    const std::string n = std::to_string(i + 1);
    spec.layers.push_back(layer(LayerSpec::kLinear, "fc" + n, {before}, widths[i]));
    spec.layers.push_back(layer(LayerSpec::kRelu, "relu" + n, {"fc" + n}));
    before = "relu" + n;
  }
  spec.layers.push_back(
      layer(LayerSpec::kLinear, "fc" + std::to_string(widths.size() + 1), {before}, classes));
  return spec;
}

// Layouts of 7 and 6, and of 40 and 30 hidden units.
inline std::shared_ptr<const ParameterLayout> small() { return compile(lenet({7, 6}, {1, 5, 5}, 3))->layout; }
inline std::shared_ptr<const ParameterLayout> medium() { return compile(lenet({40, 30}, {1, 9, 9}, 5))->layout; }

// Batch norm between two linear layers: a network with running statistics.
inline NetworkSpec normalised() {
  return {"normalised", {1, 5, 5}, 3,
          {layer(LayerSpec::kFlatten, "flatten", {"input"}), layer(LayerSpec::kLinear, "fc1", {"flatten"}, 8),
           layer(LayerSpec::kBatchNorm, "bn1", {"fc1"}), layer(LayerSpec::kRelu, "relu1", {"bn1"}),
           layer(LayerSpec::kLinear, "fc2", {"relu1"}, 3)}};
}

template <typename T>
T* values(const Arena& arena) {
  return reinterpret_cast<T*>(arena.data());
}

// Weights that differ from one another, made of the seed; gaps stay zero.
template <typename T>
Snapshot drawn(std::shared_ptr<const ParameterLayout> layout, uint64_t seed) {
  Snapshot s;
  s.dtype = sizeof(T) == 4 ? Dtype::kFloat32 : Dtype::kFloat64;
  s.parameters = Arena(static_cast<size_t>(layout->arena) * sizeof(T));
  const Stream numbers = stream(seed, 0, Purpose::kInitialisation, 0);
  for (size_t i = 0; i < layout->parameters.size(); ++i) {
    const ParameterSpec& p = layout->parameters[i];
    for (int64_t x = 0; x < p.size; ++x) {
      values<T>(s.parameters)[p.offset + x] =
          static_cast<T>(normal(numbers, static_cast<uint64_t>(x), 0, static_cast<uint32_t>(i)));
    }
  }
  s.layout = std::move(layout);
  return s;
}

}  // namespace lth::test
