#include "network/network.h"

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
    default: return "add";
  }
}

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
    const size_t wanted = layer.type == LayerSpec::kAdd ? 2 : 1;
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
    }
    unused_.insert(layer.name);
    last_ = layer.name;
  }

  // All features of an example in a row: activations are stored so anyway, only the shape changes.
  void flatten(const LayerSpec& layer, const Named& input) {
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
    weight.fan_in = in;
    weight.fan_out = layer.units;
    Operation& op = operation(Operation::kLinear, layer, {input}, {{layer.units}, layer.units});
    op.weight = layout_->add(std::move(weight));
    if (layer.bias) {
      ParameterSpec bias;
      bias.name = layer.name + ".bias";
      bias.shape = {layer.units};
      op.bias = layout_->add(std::move(bias));
    }
    if (layout_->arena > kMostElements) {
      throw Error("invalid-argument", tag(layer) + " the network has too many parameters");
    }
    out_->flops += 2 * size;
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
    Operation op{type, layer.name, {}};
    for (const Named& input : inputs) op.inputs.push_back(input.value);
    op.output = static_cast<int>(out_->values.size());
    named_[layer.name] = {op.output, value};
    out_->values.push_back(std::move(value));
    return out_->operations.emplace_back(std::move(op));
  }

  void finish() {
    const NetworkSpec& spec = out_->spec;
    unused_.erase(last_);
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
    fuse();
    for (const ParameterSpec& p : layout_->parameters) {
      out_->parameter_count += p.size;
      if (p.weight) out_->weight_count += p.size;
      if (p.prunable) out_->prunable_count += p.size;
    }
    out_->layout = layout_;
    describe();
  }

  // A ReLU that is the only reader of a linear layer becomes that layer's epilogue: one pass less over the
  // activations, forward and backward.
  void fuse() {
    std::vector<int> readers(out_->values.size(), 0), producer(out_->values.size(), -1);
    for (const Operation& op : out_->operations) {
      for (int input : op.inputs) ++readers[input];
    }
    ++readers[out_->output];
    std::vector<Operation> fused;
    for (Operation& op : out_->operations) {
      const int before = producer[op.inputs[0]];
      if (op.type == Operation::kRelu && before >= 0 && readers[op.inputs[0]] == 1) {
        fused[before].fused_relu = true;
        fused[before].output = op.output;
      } else {
        if (op.type == Operation::kLinear) producer[op.output] = static_cast<int>(fused.size());
        fused.push_back(std::move(op));
      }
    }
    out_->operations = std::move(fused);
    drop_fused_values();
  }

  // What lay between a linear layer and its ReLU is never stored: executors make a buffer for each value that is left.
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
    out_->values = std::move(kept);
  }

  void describe() {
    for (const Operation& op : out_->operations) {
      const Value &in = out_->values[op.inputs[0]], &to = out_->values[op.output];
      std::string line = op.name + ": ";
      line += op.type == Operation::kLinear ? (op.fused_relu ? "linear + relu" : "linear")
              : op.type == Operation::kRelu ? "relu"
                                            : "add";
      out_->operation_lines.push_back(line + " " + text_of(in.shape) + " -> " + text_of(to.shape));
    }
  }

  std::shared_ptr<CompiledNetwork> out_ = std::make_shared<CompiledNetwork>();
  std::shared_ptr<ParameterLayout> layout_ = std::make_shared<ParameterLayout>();
  std::map<std::string, Named> named_;
  std::set<std::string> unused_;
  std::string last_;
};

}  // namespace

std::shared_ptr<const CompiledNetwork> compile(const NetworkSpec& spec) { return Compiler(spec).run(); }

}  // namespace lth
