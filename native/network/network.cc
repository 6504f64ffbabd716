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
    value_of_["input"] = 0;
    for (const LayerSpec& layer : spec.layers) add(layer);
    finish();
    return out_;
  }

 private:
  static std::string tag(const LayerSpec& layer) { return std::string("[") + name_of(layer.type) + " " + layer.name + "]"; }

  void add(const LayerSpec& layer) {
    if (layer.name.empty()) throw Error("invalid-argument", tag(layer) + " has no name");
    if (value_of_.count(layer.name)) throw Error("invalid-argument", tag(layer) + " the name is taken");
    const size_t wanted = layer.type == LayerSpec::kAdd ? 2 : 1;
    if (layer.inputs.size() < wanted || (wanted == 1 && layer.inputs.size() > 1)) {
      throw Error("invalid-argument", tag(layer) + " wants " + (wanted == 1 ? "one input" : "at least two inputs") +
                                          ", has " + std::to_string(layer.inputs.size()));
    }
    std::vector<int> inputs;
    for (const std::string& name : layer.inputs) {
      const auto found = value_of_.find(name);
      if (found == value_of_.end()) {
        throw Error("invalid-argument", tag(layer) + " reads \"" + name + "\", which is no layer before it");
      }
      unused_.erase(name);
      inputs.push_back(found->second);
    }
    switch (layer.type) {
      case LayerSpec::kFlatten: flatten(layer, inputs[0]); break;
      case LayerSpec::kLinear: linear(layer, inputs[0]); break;
      case LayerSpec::kRelu: operation({Operation::kRelu, layer.name, inputs}, out_->values[inputs[0]]); break;
      case LayerSpec::kAdd: sum(layer, inputs); break;
    }
    unused_.insert(layer.name);
    last_ = layer.name;
  }

  // All features of an example in a row: activations are stored so anyway, only the shape changes.
  void flatten(const LayerSpec& layer, int input) {
    const int alias = static_cast<int>(out_->values.size());
    out_->values.push_back({{out_->values[input].features}, out_->values[input].features});
    same_as_[alias] = input;
    value_of_[layer.name] = alias;
  }

  void linear(const LayerSpec& layer, int input) {
    const std::vector<int64_t>& shape = out_->values[input].shape;
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
    Operation op{Operation::kLinear, layer.name, {input}};
    op.weight = layout_->add(std::move(weight));
    if (layer.bias) {
      ParameterSpec bias;
      bias.name = layer.name + ".bias";
      bias.shape = {layer.units};
      op.bias = layout_->add(std::move(bias));
    }
    if (layout_->arena > kMostElements) throw Error("invalid-argument", tag(layer) + " the network has too many parameters");
    out_->flops += 2 * size;
    operation(std::move(op), {{layer.units}, layer.units});
  }

  void sum(const LayerSpec& layer, const std::vector<int>& inputs) {
    for (int input : inputs) {
      if (out_->values[input].shape != out_->values[inputs[0]].shape) {
        throw Error("wrong-shape", tag(layer) + " inputs " + text_of(out_->values[inputs[0]].shape) + " and " +
                                       text_of(out_->values[input].shape) + " differ");
      }
    }
    operation({Operation::kAdd, layer.name, inputs}, out_->values[inputs[0]]);
  }

  void operation(Operation op, Value value) {
    for (int& input : op.inputs) input = root(input);
    op.output = static_cast<int>(out_->values.size());
    value_of_[op.name] = op.output;
    out_->values.push_back(std::move(value));
    out_->operations.push_back(std::move(op));
  }

  int root(int value) const {
    for (auto found = same_as_.find(value); found != same_as_.end(); found = same_as_.find(value)) value = found->second;
    return value;
  }

  void finish() {
    const NetworkSpec& spec = out_->spec;
    unused_.erase(last_);
    if (!unused_.empty()) {
      throw Error("invalid-argument", "[network " + spec.name + "] no layer reads \"" + *unused_.begin() +
                                          "\" and it is not the last");
    }
    const Value& logits = out_->values[value_of_.at(last_)];
    if (logits.shape != std::vector<int64_t>{spec.classes}) {
      throw Error("wrong-shape", "[network " + spec.name + "] the last layer gives " + text_of(logits.shape) +
                                     ", expected logits (N," + std::to_string(spec.classes) + ")");
    }
    out_->output = root(value_of_.at(last_));
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
    std::vector<int> readers(out_->values.size(), 0);
    for (const Operation& op : out_->operations) {
      for (int input : op.inputs) ++readers[input];
    }
    std::vector<Operation> fused;
    for (Operation& op : out_->operations) {
      Operation* producer = nullptr;
      if (op.type == Operation::kRelu && readers[op.inputs[0]] == 1) {
        for (Operation& before : fused) {
          if (before.output == op.inputs[0] && before.type == Operation::kLinear && !before.fused_relu) producer = &before;
        }
      }
      if (producer) {
        producer->fused_relu = true;
        producer->output = op.output;
      } else {
        fused.push_back(std::move(op));
      }
    }
    out_->operations = std::move(fused);
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
  std::map<std::string, int> value_of_;
  std::map<int, int> same_as_;  // flatten: value -> the value it renames
  std::set<std::string> unused_;
  std::string last_;
};

}  // namespace

std::shared_ptr<const CompiledNetwork> compile(const NetworkSpec& spec) { return Compiler(spec).run(); }

}  // namespace lth
