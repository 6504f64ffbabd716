#include "network/network.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>

#include "core/error.h"

namespace lth {
namespace {

// Far above any real network, far below an overflow of the sums below.
constexpr int64_t kMostElements = int64_t{1} << 40;

const char* name_of(LayerSpec::Type type) {
  switch (type) {
    case LayerSpec::kFlatten: return "flatten";
    case LayerSpec::kLinear: return "linear";
    case LayerSpec::kRelu: return "relu";
    case LayerSpec::kConvolution: return "conv";
    case LayerSpec::kBatchNorm: return "batchnorm";
    case LayerSpec::kMaxPool: return "maxpool";
    case LayerSpec::kGlobalPool: return "globalpool";
    case LayerSpec::kAveragePool: return "avgpool";
    case LayerSpec::kConcat: return "concat";
    case LayerSpec::kDropout: return "dropout";
    default: return "add";
  }
}

const char* name_of(Operation::Type type) {
  switch (type) {
    case Operation::kLinear: return "linear";
    case Operation::kRelu: return "relu";
    case Operation::kConvolution: return "conv";
    case Operation::kBatchNorm: return "batchnorm";
    case Operation::kMaxPool: return "maxpool";
    case Operation::kGlobalPool: return "globalpool";
    case Operation::kFlatten: return "flatten";
    case Operation::kAveragePool: return "avgpool";
    case Operation::kConcat: return "concat";
    case Operation::kDropout: return "dropout";
    default: return "add";
  }
}

// Is it more than products of rows, ReLU and sums? Where one layer is, images are kept as such.
bool looks_at_images(const LayerSpec& layer) {
  switch (layer.type) {
    case LayerSpec::kFlatten:
    case LayerSpec::kLinear:
    case LayerSpec::kRelu:
    case LayerSpec::kAdd: return false;
    default: return true;
  }
}

bool reads_several(LayerSpec::Type type) { return type == LayerSpec::kAdd || type == LayerSpec::kConcat; }

std::string text_of(const std::vector<int64_t>& shape) {
  std::string text = "(N";
  for (int64_t d : shape) text += "," + std::to_string(d);
  return text + ")";
}

int64_t product(const std::vector<int64_t>& shape, const std::string& what) {
  int64_t size = 1;
  for (int64_t d : shape) {
    if (d <= 0) throw Error("invalid-argument", what + ": every extent must be at least 1, one is " + std::to_string(d));
    if (size > kMostElements / d) throw Error("invalid-argument", what + " has too many elements");
    size *= d;
  }
  return size;
}

class Compiler {
 public:
  explicit Compiler(const NetworkSpec& spec) { out_->spec = spec; }

  std::shared_ptr<const CompiledNetwork> run() {
    const NetworkSpec& spec = out_->spec;
    if (spec.layers.empty()) throw Error("invalid-argument", "[network " + spec.name + "] has no layers");
    if (spec.input.empty()) throw Error("invalid-argument", "[network " + spec.name + "] has no input shape");
    out_->values.push_back({spec.input, product(spec.input, "[network " + spec.name + "] input")});
    named_["input"] = {0, out_->values[0]};
    for (const LayerSpec& layer : spec.layers) add(layer);
    finish();
    return out_;
  }

 private:
  // What a layer's name stands for: a value, seen in a shape (flatten only changes the shape).
  struct Named {
    int value = -1;
    Value as;
  };

  static std::string tag(const LayerSpec& layer) { return std::string("[") + name_of(layer.type) + " " + layer.name + "]"; }

  void add(const LayerSpec& layer) {
    if (layer.name.empty()) throw Error("invalid-argument", tag(layer) + " has no name");
    if (named_.count(layer.name)) throw Error("invalid-argument", tag(layer) + " the name is taken");
    const size_t wanted = reads_several(layer.type) ? 2 : 1;
    if (layer.inputs.size() < wanted || (wanted == 1 && layer.inputs.size() > 1)) {
      throw Error("invalid-argument", tag(layer) + " wants " + (wanted == 1 ? "one input" : "at least two inputs") +
                                          ", has " + std::to_string(layer.inputs.size()));
    }
    std::vector<Named> inputs;
    for (const std::string& name : layer.inputs) {
      const auto found = named_.find(name);
      if (found == named_.end()) {
        throw Error("invalid-argument", tag(layer) + " reads \"" + name + "\", which is no layer before it");
      }
      unused_.erase(name);
      inputs.push_back(found->second);
    }
    switch (layer.type) {
      case LayerSpec::kFlatten: flatten(layer, inputs[0]); break;
      case LayerSpec::kLinear: linear(layer, inputs[0]); break;
      case LayerSpec::kRelu: operation(Operation::kRelu, layer, inputs, inputs[0].as); break;
      case LayerSpec::kAdd: sum(layer, inputs); break;
      case LayerSpec::kConvolution: convolution(layer, inputs[0]); break;
      case LayerSpec::kBatchNorm: batch_norm(layer, inputs[0]); break;
      case LayerSpec::kMaxPool: max_pool(layer, inputs[0]); break;
      case LayerSpec::kGlobalPool:
        operation(Operation::kGlobalPool, layer, {image(layer, inputs[0])},
                  {{inputs[0].as.shape[0]}, inputs[0].as.shape[0]});
        break;
      case LayerSpec::kAveragePool: average_pool(layer, inputs[0]); break;
      case LayerSpec::kConcat: concat(layer, inputs); break;
      case LayerSpec::kDropout: dropout(layer, inputs[0]); break;
    }
    unused_.insert(layer.name);
    last_ = layer.name;
  }

  // All features of an example in a row. Where nothing looks at images they are stored so anyway, and only the shape
  // changes.
  void flatten(const LayerSpec& layer, const Named& input) {
    const std::vector<LayerSpec>& all = out_->spec.layers;
    if (input.as.shape.size() > 1 && std::any_of(all.begin(), all.end(), looks_at_images)) {
      operation(Operation::kFlatten, layer, {input}, {{input.as.features}, input.as.features});
      return;
    }
    named_[layer.name] = {input.value, {{input.as.features}, input.as.features}};
  }

  void linear(const LayerSpec& layer, const Named& input) {
    const std::vector<int64_t>& shape = input.as.shape;
    if (shape.size() != 1) {
      throw Error("wrong-shape", tag(layer) + " wants (N,C) but reads " + text_of(shape) + ": add a flatten layer");
    }
    const int64_t in = shape[0];
    const int64_t size = product({layer.units, in}, tag(layer) + " weight (" + std::to_string(layer.units) + "," +
                                                        std::to_string(in) + ")");
    ParameterSpec weight;
    weight.name = layer.name + ".weight";
    weight.shape = {layer.units, in};
    weight.prunable = layer.prunable;
    weight.weight = true;
    weight.initialisation = layer.initialisation;
    weight.initialisation_scale = layer.initialisation_scale;
    weight.fan_in = in;
    weight.fan_out = layer.units;
    Operation& op = operation(Operation::kLinear, layer, {input}, {{layer.units}, layer.units});
    op.weight = layout_->add(std::move(weight));
    if (layer.bias) op.bias = per_unit(layer.name + ".bias", layer.units);
    count_flops(layer, size);
  }

  // A parameter with one element per unit or channel.
  int per_unit(const std::string& name, int64_t units, Initialisation initialisation = Initialisation::kZeros) {
    ParameterSpec p;
    p.name = name;
    p.shape = {units};
    p.initialisation = initialisation;
    return layout_->add(std::move(p));
  }

  // `products`: multiply-adds of one forward of one example.
  void count_flops(const LayerSpec& layer, int64_t products) {
    if (layout_->arena > kMostElements) {
      throw Error("invalid-argument", tag(layer) + " the network has too many parameters");
    }
    if (out_->flops > INT64_MAX / 2 - 2 * products) {
      throw Error("invalid-argument", tag(layer) + " the network has too many operations");
    }
    out_->flops += 2 * products;
  }

  static const Named& image(const LayerSpec& layer, const Named& input) {
    if (input.as.shape.size() != 3) {
      throw Error("wrong-shape", tag(layer) + " wants (N,C,H,W) but reads " + text_of(input.as.shape));
    }
    return input;
  }

  // Positions of a window along one axis of extent `size`. With `ceil` the last may overhang, if it begins inside the input
  // or its first padding.
  static int64_t positions(const LayerSpec& layer, int64_t size, int64_t kernel, int64_t stride, int64_t padding) {
    if (kernel < 1 || stride < 1 || padding < 0 || padding >= kernel) {
      throw Error("invalid-argument", tag(layer) + " kernel and stride must be at least 1, padding below the kernel, are " +
                                          std::to_string(kernel) + ", " + std::to_string(stride) + ", " +
                                          std::to_string(padding));
    }
    if (size + 2 * padding < kernel) {
      throw Error("wrong-shape", tag(layer) + " a kernel of " + std::to_string(kernel) + " is larger than its input of " +
                                     std::to_string(size) + " with padding " + std::to_string(padding));
    }
    const int64_t behind = size + 2 * padding - kernel, last = behind / stride;
    return last + 1 + (layer.ceil && behind % stride > 0 && (last + 1) * stride < size + padding);
  }

  void windows(Operation& op, const LayerSpec& layer) {
    op.kernel = layer.kernel;
    op.stride = layer.stride;
    op.padding = layer.padding;
    op.ceil = layer.ceil;
  }

  Value slid_over(const LayerSpec& layer, const Named& input, int64_t channels) {
    const std::vector<int64_t>& shape = image(layer, input).as.shape;
    const std::vector<int64_t> out = {channels,
                                      positions(layer, shape[1], layer.kernel.h, layer.stride.h, layer.padding.h),
                                      positions(layer, shape[2], layer.kernel.w, layer.stride.w, layer.padding.w)};
    return {out, product(out, tag(layer) + " output " + text_of(out))};
  }

  void convolution(const LayerSpec& layer, const Named& input) {
    const Value value = slid_over(layer, input, layer.units);
    const int64_t in = input.as.shape[0], area = layer.kernel.h * layer.kernel.w;
    ParameterSpec weight;
    weight.name = layer.name + ".weight";
    weight.shape = {layer.units, in, layer.kernel.h, layer.kernel.w};
    const int64_t size = product(weight.shape, tag(layer) + " weight");
    weight.prunable = layer.prunable;
    weight.weight = true;
    weight.initialisation = layer.initialisation;
    weight.initialisation_scale = layer.initialisation_scale;
    weight.fan_in = in * area;
    weight.fan_out = layer.units * area;
    const int64_t places = value.shape[1] * value.shape[2];
    if (size > kMostElements / places) throw Error("invalid-argument", tag(layer) + " has too many operations");
    Operation& op = operation(Operation::kConvolution, layer, {input}, value);
    windows(op, layer);
    op.weight = layout_->add(std::move(weight));
    if (layer.bias) op.bias = per_unit(layer.name + ".bias", layer.units);
    count_flops(layer, size * places);
  }

  void batch_norm(const LayerSpec& layer, const Named& input) {
    if (!(layer.epsilon > 0) || !(layer.momentum > 0) || layer.momentum > 1) {
      throw Error("invalid-argument", tag(layer) + " epsilon must be above 0 and momentum in (0, 1]");
    }
    const int64_t channels = input.as.shape[0];
    Operation& op = operation(Operation::kBatchNorm, layer, {input}, input.as);
    op.epsilon = layer.epsilon;
    op.momentum = layer.momentum;
    op.weight = per_unit(layer.name + ".weight", channels, layer.zero_scale ? Initialisation::kZeros : Initialisation::kOnes);
    op.bias = per_unit(layer.name + ".bias", channels);
    for (int one : {op.weight, op.bias}) layout_->parameters[static_cast<size_t>(one)].norm = true;
  }

  void max_pool(const LayerSpec& layer, const Named& input) {
    const Value value = slid_over(layer, input, image(layer, input).as.shape[0]);
    windows(operation(Operation::kMaxPool, layer, {input}, value), layer);
  }

  // Padding counts as 0 in the mean.
  void average_pool(const LayerSpec& layer, const Named& input) {
    const Value value = slid_over(layer, input, image(layer, input).as.shape[0]);
    windows(operation(Operation::kAveragePool, layer, {input}, value), layer);
  }

  // (N,C0,H,W), (N,C1,H,W), ... -> (N,C0+C1+...,H,W), and of vectors the same.
  void concat(const LayerSpec& layer, const std::vector<Named>& inputs) {
    std::vector<int64_t> shape = inputs[0].as.shape;
    for (size_t i = 1; i < inputs.size(); ++i) {
      std::vector<int64_t> other = inputs[i].as.shape;
      other[0] = shape[0];
      if (other != shape) {
        throw Error("wrong-shape", tag(layer) + " inputs " + text_of(inputs[0].as.shape) + " and " +
                                       text_of(inputs[i].as.shape) + " differ in more than channels");
      }
      shape[0] += inputs[i].as.shape[0];
    }
    const int64_t size = product(shape, tag(layer) + " output " + text_of(shape));
    operation(Operation::kConcat, layer, inputs, {shape, size});
  }

  void dropout(const LayerSpec& layer, const Named& input) {
    if (!(layer.probability >= 0) || !(layer.probability < 1)) {
      throw Error("invalid-argument", tag(layer) + " probability must be in [0, 1)");
    }
    Operation& op = operation(Operation::kDropout, layer, {input}, input.as);
    op.probability = layer.probability;
    op.dropout = dropouts_++;
  }

  // Behind all trainable parameters.
  void add_running_statistics() {
    for (Operation& op : out_->operations) {
      if (op.type != Operation::kBatchNorm) continue;
      for (const bool is_mean : {true, false}) {
        ParameterSpec p;
        p.name = op.name + (is_mean ? ".running_mean" : ".running_var");
        p.shape = layout_->parameters[op.weight].shape;
        p.trainable = false;
        p.initialisation = is_mean ? Initialisation::kZeros : Initialisation::kOnes;
        (is_mean ? op.running_mean : op.running_variance) = layout_->add(std::move(p));
      }
    }
  }

  void sum(const LayerSpec& layer, const std::vector<Named>& inputs) {
    for (const Named& input : inputs) {
      if (input.as.shape != inputs[0].as.shape) {
        throw Error("wrong-shape", tag(layer) + " inputs " + text_of(inputs[0].as.shape) + " and " +
                                       text_of(input.as.shape) + " differ");
      }
    }
    operation(Operation::kAdd, layer, inputs, inputs[0].as);
  }

  Operation& operation(Operation::Type type, const LayerSpec& layer, const std::vector<Named>& inputs, Value value) {
    Operation op;
    op.type = type;
    op.name = layer.name;
    for (const Named& input : inputs) op.inputs.push_back(input.value);
    op.output = static_cast<int>(out_->values.size());
    named_[layer.name] = {op.output, value};
    out_->values.push_back(std::move(value));
    return out_->operations.emplace_back(std::move(op));
  }

  void finish() {
    const NetworkSpec& spec = out_->spec;
    unused_.erase(last_);
    for (const AuxiliarySpec& one : spec.auxiliary) add_auxiliary(one);
    if (!unused_.empty()) {
      throw Error("invalid-argument", "[network " + spec.name + "] no layer reads \"" + *unused_.begin() +
                                          "\" and it is not the last");
    }
    const Named& logits = named_.at(last_);
    if (logits.as.shape != std::vector<int64_t>{spec.classes}) {
      throw Error("wrong-shape", "[network " + spec.name + "] the last layer gives " + text_of(logits.as.shape) +
                                     ", expected logits (N," + std::to_string(spec.classes) + ")");
    }
    out_->output = logits.value;
    if (out_->operations.empty() || layout_->parameters.empty()) {
      throw Error("invalid-argument", "[network " + spec.name + "] has nothing to train");
    }
    add_running_statistics();
    fuse();
    mark_auxiliary();
    for (const ParameterSpec& p : layout_->parameters) {
      if (!p.trainable) continue;
      out_->parameter_count += p.size;
      if (p.weight) out_->weight_count += p.size;
      if (p.prunable) out_->prunable_count += p.size;
    }
    out_->layout = layout_;
    describe();
  }

  void add_auxiliary(const AuxiliarySpec& one) {
    const std::string what = "[network " + out_->spec.name + "] auxiliary \"" + one.layer + "\"";
    const auto found = named_.find(one.layer);
    if (found == named_.end() || found->second.value == out_->input) throw Error("invalid-argument", what + " is no layer");
    const int value = found->second.value;
    const bool twice = std::any_of(out_->auxiliary.begin(), out_->auxiliary.end(), [&](const auto& other) { return other.value == value; });
    if (twice || value == named_.at(last_).value) throw Error("invalid-argument", what + " has a loss already");
    if (found->second.as.shape != std::vector<int64_t>{out_->spec.classes}) {
      throw Error("wrong-shape", what + " gives " + text_of(found->second.as.shape) + ", expected logits (N," +
                                     std::to_string(out_->spec.classes) + ")");
    }
    if (!(one.weight > 0)) throw Error("invalid-argument", what + " weight must be above 0");
    unused_.erase(one.layer);
    out_->auxiliary.push_back({value, one.weight});
  }

  // Operations that the logits do not need.
  void mark_auxiliary() {
    std::vector<bool> needed(out_->values.size(), false);
    needed[out_->output] = true;
    for (auto op = out_->operations.rbegin(); op != out_->operations.rend(); ++op) {
      op->auxiliary = !needed[op->output];
      if (op->auxiliary) continue;
      for (int input : op->inputs) needed[input] = true;
    }
  }

  // Epilogues: a ReLU that is the only reader of a linear layer, convolution or batch norm, and before it the sum that is the only
  // reader of a batch norm (a residual connection), are done while that layer's output is at hand: passes less over
  // the activations, forward and backward.
  void fuse() {
    std::vector<int> readers(out_->values.size(), 0);
    for (const Operation& op : out_->operations) {
      for (int input : op.inputs) ++readers[input];
    }
    ++readers[out_->output];
    for (const auto& one : out_->auxiliary) ++readers[one.value];
    std::vector<Operation> fused;
    std::vector<int> made_by(out_->values.size(), -1);  // index in `fused`
    const auto open = [&](int value, Operation::Type type) {
      const int maker = made_by[value];
      return maker >= 0 && readers[value] == 1 && fused[maker].type == type && !fused[maker].fused_relu;
    };
    for (Operation& op : out_->operations) {
      int into = -1;
      if (op.type == Operation::kRelu && (open(op.inputs[0], Operation::kLinear) || open(op.inputs[0], Operation::kConvolution) ||
                                          open(op.inputs[0], Operation::kBatchNorm))) {
        into = made_by[op.inputs[0]];
        fused[into].fused_relu = true;
      } else if (op.type == Operation::kAdd && op.inputs.size() == 2) {
        // Into the later of the two, so that the other term is there when it is wanted.
        const int later = made_by[op.inputs[0]] > made_by[op.inputs[1]] ? 0 : 1;
        const int value = op.inputs[later], other = op.inputs[1 - later];
        if (value != other && open(value, Operation::kBatchNorm) && fused[made_by[value]].inputs.size() == 1) {
          into = made_by[value];
          fused[into].inputs.push_back(other);
        }
      }
      if (into >= 0) {
        fused[into].output = op.output;
        made_by[op.output] = into;
      } else {
        made_by[op.output] = static_cast<int>(fused.size());
        fused.push_back(std::move(op));
      }
    }
    out_->operations = std::move(fused);
    drop_fused_values();
  }

  // What lay between an operation and its epilogue is never stored: executors make a buffer for each value that is left.
  void drop_fused_values() {
    std::vector<Value> kept = {out_->values[0]};
    std::vector<int> renamed(out_->values.size(), 0);
    for (const Operation& op : out_->operations) {
      renamed[op.output] = static_cast<int>(kept.size());
      kept.push_back(std::move(out_->values[op.output]));
    }
    for (Operation& op : out_->operations) {
      for (int& input : op.inputs) input = renamed[input];
      op.output = renamed[op.output];
    }
    out_->output = renamed[out_->output];
    for (auto& one : out_->auxiliary) one.value = renamed[one.value];
    out_->values = std::move(kept);
  }

  void describe() {
    for (const Operation& op : out_->operations) {
      const Value &in = out_->values[op.inputs[0]], &to = out_->values[op.output];
      std::string line = op.name + ": " + name_of(op.type);
      if (op.type == Operation::kBatchNorm && op.inputs.size() > 1) line += " + add";
      if (op.fused_relu) line += " + relu";
      out_->operation_lines.push_back(line + " " + text_of(in.shape) + " -> " + text_of(to.shape));
    }
  }

  std::shared_ptr<CompiledNetwork> out_ = std::make_shared<CompiledNetwork>();
  std::shared_ptr<ParameterLayout> layout_ = std::make_shared<ParameterLayout>();
  std::map<std::string, Named> named_;
  std::set<std::string> unused_;
  std::string last_;
  int dropouts_ = 0;
};

}  // namespace

bool CompiledNetwork::holds_examples(int value) const {
  if (value == input) return true;
  return std::any_of(operations.begin(), operations.end(), [&](const Operation& op) {
    return op.type == Operation::kFlatten && op.output == value && holds_examples(op.inputs[0]);
  });
}

bool CompiledNetwork::convolutional() const {
  for (const Operation& op : operations) {
    if (op.type != Operation::kLinear && op.type != Operation::kRelu && op.type != Operation::kAdd) return true;
  }
  return false;
}

std::shared_ptr<const CompiledNetwork> compile(const NetworkSpec& spec) { return Compiler(spec).run(); }

}  // namespace lth
