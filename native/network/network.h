// A network's description and what it compiles to: a parameter layout and a plan of operations.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/layout.h"

namespace lth {

struct Pair {
  int64_t h = 0, w = 0;
};

struct LayerSpec {
  enum Type {
    kFlatten, kLinear, kRelu, kAdd, kConvolution, kBatchNorm, kMaxPool, kGlobalPool, kAveragePool, kConcat, kDropout
  };
  std::string name;
  Type type = kLinear;
  std::vector<std::string> inputs;  // names of layers before this one; "input" is the example
  int64_t units = 0;                // linear: features out; convolution: channels out
  Pair kernel, stride, padding;     // convolution, max and average pool: height and width
  bool ceil = false;                // max pool: a last window may overhang
  double epsilon = 1e-5, momentum = 0.1;  // batch norm; running = (1 - momentum) * running + momentum * batch
  bool zero_scale = false;                // batch norm: the weight begins as 0, not as 1
  double probability = 0;                 // dropout: of an element to be dropped
  bool bias = true;
  bool prunable = true;
  Initialisation initialisation = Initialisation::kGlorotNormal;
  double initialisation_scale = 1;  // what that makes of it: a deviation, or a factor of the variance
};

// A second head: logits of its own, whose loss is added in training and which is left out everywhere else.
struct AuxiliarySpec {
  std::string layer;
  double weight = 0;  // of its loss
};

struct NetworkSpec {
  std::string name;
  std::vector<int64_t> input;  // shape of one example
  int classes = 0;
  std::vector<LayerSpec> layers;  // in topological order; the last gives the logits
  std::vector<AuxiliarySpec> auxiliary = {};
};

// A tensor of activations, without the batch. What is fused into an operation after it makes no value of its own, and
// neither does flatten where all values are kept as vectors: only what an executor must store is a value.
struct Value {
  std::vector<int64_t> shape;
  int64_t features = 0;
};

struct Operation {
  // Flatten: only in networks that keep images, where a vector is kept otherwise than an image.
  enum Type {
    kLinear, kRelu, kAdd, kConvolution, kBatchNorm, kMaxPool, kGlobalPool, kFlatten, kAveragePool, kConcat, kDropout
  };
  Type type = kLinear;
  std::string name;         // of the layer
  std::vector<int> inputs;  // indices of values; batch norm: a second one is the fused sum's other term
  int output = -1;
  int weight = -1, bias = -1;                   // indices of parameters; -1: none
  int running_mean = -1, running_variance = -1;  // batch norm
  bool fused_relu = false;  // linear, convolution: y = max(x W^T + b, 0); batch norm: y = max(norm(x) [+ other], 0)
  Pair kernel, stride, padding;
  bool ceil = false;
  double epsilon = 0, momentum = 0;
  double probability = 0;
  int dropout = -1;        // which of the network's dropout layers it is
  bool auxiliary = false;  // of an auxiliary head alone: no evaluation needs it
};

struct CompiledNetwork {
  NetworkSpec spec;
  std::shared_ptr<const ParameterLayout> layout;
  std::vector<Value> values;
  std::vector<Operation> operations;
  int input = 0, output = 0;  // values
  struct Auxiliary {
    int value;  // logits
    double weight;
  };
  std::vector<Auxiliary> auxiliary;
  int64_t parameter_count = 0, weight_count = 0, prunable_count = 0;  // trainable ones
  int64_t flops = 0;  // multiply-adds x 2 of one forward of one example
  std::vector<std::string> operation_lines;

  // Has it layers that look at height and width, or at the whole batch? (Others are products of rows alone.)
  bool convolutional() const;
  // Is a value the examples themselves, if only flattened? Nobody asks for their gradient.
  bool holds_examples(int value) const;
};

// Validates and compiles. Errors are "wrong-shape" or "invalid-argument" and start with the layer they are about.
std::shared_ptr<const CompiledNetwork> compile(const NetworkSpec& spec);

}  // namespace lth
