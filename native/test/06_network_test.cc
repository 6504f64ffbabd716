// Descriptions of networks: what compiles, and into what; what does not, and why.
#include <cmath>

#include "check.h"
#include "networks.h"

using namespace lth;
using test::layer;
using test::lenet;

namespace {

constexpr auto kFlatten = LayerSpec::kFlatten;
constexpr auto kLinear = LayerSpec::kLinear;
constexpr auto kRelu = LayerSpec::kRelu;
constexpr auto kAdd = LayerSpec::kAdd;
constexpr auto kConvolution = LayerSpec::kConvolution;
constexpr auto kMaxPool = LayerSpec::kMaxPool;
constexpr auto kAveragePool = LayerSpec::kAveragePool;
constexpr auto kConcat = LayerSpec::kConcat;
constexpr auto kDropout = LayerSpec::kDropout;
constexpr auto kGlobalPool = LayerSpec::kGlobalPool;

NetworkSpec net(std::vector<LayerSpec> layers, std::vector<int64_t> input = {8}, int classes = 4) {
  return {"n", std::move(input), classes, std::move(layers)};
}

}  // namespace

TEST("LeNet-300-100 has 266,610 parameters, 266,200 weights (paper 2.1) and three fused operations") {
  const auto n = compile(lenet({300, 100}));
  CHECK_EQUAL(n->parameter_count, 266610);
  CHECK_EQUAL(n->weight_count, 266200);
  CHECK_EQUAL(n->prunable_count, 266200);
  CHECK_EQUAL(n->flops, 2 * 266200);
  CHECK_EQUAL(n->operations.size(), 3u);
  CHECK(n->operations[0].fused_relu && n->operations[1].fused_relu && !n->operations[2].fused_relu);
  CHECK_EQUAL(n->operation_lines, std::vector<std::string>{"fc1: linear + relu (N,1,28,28) -> (N,300)",
                                                           "fc2: linear + relu (N,300) -> (N,100)",
                                                           "fc3: linear (N,100) -> (N,10)"});
}

TEST("parameters are laid out in the order of layers, named and shaped as in PyTorch") {
  const auto n = compile(lenet({300, 100}));
  std::vector<std::string> names;
  for (const ParameterSpec& p : n->layout->parameters) {
    names.push_back(p.name);
    CHECK_EQUAL(p.offset % 64, 0);
    CHECK_EQUAL(p.weight, p.shape.size() == 2);
    CHECK_EQUAL(p.prunable, p.weight);
  }
  CHECK_EQUAL(names, std::vector<std::string>{"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias",
                                              "fc3.weight", "fc3.bias"});
  const ParameterSpec& w = n->layout->parameters[0];
  CHECK_EQUAL(w.shape, std::vector<int64_t>{300, 784});
  CHECK_EQUAL(w.fan_in, 784);
  CHECK_EQUAL(w.fan_out, 300);
  CHECK(w.initialisation == Initialisation::kGlorotNormal);
  CHECK(n->layout->parameters[1].initialisation == Initialisation::kZeros);
}

TEST("only what must be stored is a value: no flatten, nothing between a linear layer and its ReLU") {
  const auto n = compile(lenet({300, 100}));
  std::vector<int64_t> features;
  for (const Value& v : n->values) features.push_back(v.features);
  CHECK_EQUAL(features, std::vector<int64_t>{784, 300, 100, 10});
  CHECK_EQUAL(n->input, 0);
  CHECK_EQUAL(n->output, 3);
  for (size_t i = 0; i < n->operations.size(); ++i) {
    CHECK_EQUAL(n->operations[i].inputs, std::vector<int>{static_cast<int>(i)});
    CHECK_EQUAL(n->operations[i].output, static_cast<int>(i) + 1);
  }
}

TEST("a linear layer that others read too is not fused; branches and sums compile") {
  const auto n = compile(
      net({layer(kLinear, "a", {"input"}, 6), layer(kRelu, "r", {"a"}), layer(kAdd, "s", {"a", "r", "r"}),
           layer(kRelu, "r2", {"s"}), layer(kLinear, "out", {"r2"}, 4)}));
  CHECK_EQUAL(n->operations.size(), 5u);
  CHECK(!n->operations[0].fused_relu);
  CHECK_EQUAL(n->operations[2].inputs, std::vector<int>{1, 2, 2});
  CHECK_EQUAL(n->values.size(), 6u);
  CHECK_EQUAL(n->operation_lines[2], "s: add (N,6) -> (N,6)");
}

TEST("each operation reads only values that are written before it, whatever the network") {
  // Random networks over one width, so that every layer may read any other.
  const Stream numbers = stream(17, 0, Purpose::kOrder, 0);
  for (uint32_t trial = 0; trial < 300; ++trial) {
    uint64_t draws = 0;
    const auto pick = [&](uint64_t n) { return static_cast<size_t>(numbers.bits64(draws++, trial, 0) % n); };
    std::vector<LayerSpec> layers;
    std::vector<std::string> names = {"input"}, unread;
    for (int i = 0; i < 12; ++i) {
      const std::string name = "l" + std::to_string(i);
      const LayerSpec::Type type = std::array{kLinear, kRelu, kFlatten, kAdd}[pick(4)];
      std::vector<std::string> inputs = {names[pick(names.size())]};
      if (type == kAdd) inputs.push_back(names[pick(names.size())]);
      for (const std::string& in : inputs) std::erase(unread, in);
      layers.push_back(layer(type, name, inputs, 4));
      names.push_back(name);
      unread.push_back(name);
    }
    std::string before = "l11";  // gather what nobody read
    int sums = 0;
    for (const std::string& name : unread) {
      if (name == before) continue;
      const std::string sum = "sum" + std::to_string(sums++);
      layers.push_back(layer(kAdd, sum, {before, name}));
      before = sum;
    }
    layers.push_back(layer(kLinear, "out", {before}, 4));
    const auto n = compile(net(layers, {4}, 4));
    std::vector<bool> written(n->values.size(), false);
    written[n->input] = true;
    int relus = 0;
    for (const Operation& op : n->operations) {
      for (const int in : op.inputs) CHECK(written.at(in));
      CHECK(!written.at(op.output));
      written[op.output] = true;
      relus += op.fused_relu || op.type == Operation::kRelu;
      if (op.type == Operation::kLinear)
        CHECK(n->layout->parameters.at(op.weight).name == op.name + ".weight");
    }
    CHECK(written.at(n->output));
    for (const bool w : written) CHECK(w);
    int wanted = 0;
    for (const LayerSpec& l : layers) wanted += l.type == kRelu;
    CHECK_EQUAL(relus, wanted);
  }
}

namespace {

LayerSpec window(LayerSpec::Type type, std::string name, std::string input, int64_t kernel, int64_t stride, int64_t padding,
                 int64_t channels = 0) {
  LayerSpec l = layer(type, std::move(name), {std::move(input)}, channels);
  l.kernel = {kernel, kernel};
  l.stride = {stride, stride};
  l.padding = {padding, padding};
  return l;
}

}  // namespace

TEST("windows have PyTorch's places, rounded down or, with ceil, up as long as the last begins inside or in the padding before") {
  const auto side = [](int64_t size, int64_t kernel, int64_t stride, int64_t padding, bool ceil) {
    LayerSpec pool = window(kMaxPool, "pool", "input", kernel, stride, padding);
    pool.ceil = ceil;
    const auto n = compile(net({pool, layer(kGlobalPool, "mean", {"pool"}), layer(kLinear, "fc", {"mean"}, 4)}, {2, size, size}));
    return n->values[1].shape[1];
  };
  // As torch.nn.MaxPool2d says.
  CHECK_EQUAL(side(109, 3, 2, 0, false), 54);
  CHECK_EQUAL(side(109, 3, 2, 0, true), 54);
  CHECK_EQUAL(side(54, 3, 2, 0, false), 26);
  CHECK_EQUAL(side(54, 3, 2, 0, true), 27);
  CHECK_EQUAL(side(112, 3, 2, 1, false), 56);
  CHECK_EQUAL(side(112, 3, 2, 1, true), 57);
  CHECK_EQUAL(side(4, 2, 3, 1, true), 2);  // a third would begin at 5, behind the input
}

TEST("channels are concatenated in order; extents that differ otherwise are named") {
  const auto n = compile(net({window(kConvolution, "a", "input", 1, 1, 0, 3), window(kConvolution, "b", "input", 1, 1, 0, 5),
                              layer(kConcat, "both", {"b", "a", "input"}), layer(kGlobalPool, "mean", {"both"}),
                              layer(kLinear, "fc", {"mean"}, 4)},
                             {2, 6, 7}));
  CHECK_EQUAL(n->operation_lines[2], "both: concat (N,5,6,7) -> (N,10,6,7)");
  CHECK_EQUAL(n->operations[2].inputs, std::vector<int>{2, 1, 0});
  CHECK_THROWS(
      {
        compile(net({window(kConvolution, "a", "input", 3, 1, 0, 3), layer(kConcat, "both", {"a", "input"})}, {2, 6, 7}));
      },
      "wrong-shape", {"[concat both] inputs (N,3,4,5) and (N,2,6,7) differ in more than channels"});
  CHECK_THROWS({ compile(net({layer(kConcat, "one", {"input"})})); }, "invalid-argument", {"[concat one] wants at least two inputs"});
}

TEST("a ReLU that alone reads a convolution is made by it") {
  const auto n = compile(net({window(kConvolution, "a", "input", 3, 2, 1, 3), layer(kRelu, "a-relu", {"a"}),
                              window(kAveragePool, "mean", "a-relu", 3, 1, 1), window(kConvolution, "b", "mean", 1, 1, 0, 4),
                              layer(kRelu, "b-relu", {"b"}), layer(kConcat, "both", {"b", "b-relu"}),
                              layer(kGlobalPool, "pool", {"both"}), layer(kLinear, "fc", {"pool"}, 4)},
                             {2, 6, 6}));
  CHECK_EQUAL(n->operation_lines[0], "a: conv + relu (N,2,6,6) -> (N,3,3,3)");
  CHECK_EQUAL(n->operation_lines[1], "mean: avgpool (N,3,3,3) -> (N,3,3,3)");
  CHECK(!n->operations[2].fused_relu);  // others read b too
}

TEST("dropout layers are counted; a probability outside [0, 1) is refused") {
  const auto with = [](double probability) {
    LayerSpec first = layer(kDropout, "first", {"input"}), second = layer(kDropout, "second", {"a"});
    first.probability = 0.5;
    second.probability = probability;
    return compile(net({first, layer(kLinear, "a", {"first"}, 6), second, layer(kLinear, "b", {"second"}, 4)}));
  };
  const auto n = with(0.25);
  CHECK_EQUAL(n->operations[0].dropout, 0);
  CHECK_EQUAL(n->operations[2].dropout, 1);
  CHECK_EQUAL(n->operations[2].probability, 0.25);
  for (const double wrong : {-0.1, 1.0, std::nan("")}) {
    CHECK_THROWS({ with(wrong); }, "invalid-argument", {"[dropout second] probability must be in [0, 1)"});
  }
}

TEST("an auxiliary head gives logits, and evaluation can do without what it alone reads") {
  auto spec = net({layer(kLinear, "a", {"input"}, 6), layer(kRelu, "a-relu", {"a"}), layer(kLinear, "side", {"a-relu"}, 5),
                   layer(kLinear, "head", {"side"}, 4), layer(kLinear, "b", {"a-relu"}, 4)});
  CHECK_THROWS({ compile(spec); }, "invalid-argument", {"no layer reads \"head\""});
  spec.auxiliary = {{"head", 0.4}};
  const auto n = compile(spec);
  CHECK_EQUAL(n->auxiliary.size(), 1u);
  CHECK_EQUAL(n->auxiliary[0].weight, 0.4);
  std::vector<std::string> without;
  for (const Operation& op : n->operations) {
    if (op.auxiliary) without.push_back(op.name);
    if (op.output == n->auxiliary[0].value) CHECK_EQUAL(op.name, std::string("head"));
  }
  CHECK_EQUAL(without, std::vector<std::string>{"side", "head"});
  const auto refused = [&](std::vector<AuxiliarySpec> heads, const char* code, const char* words) {
    spec.auxiliary = std::move(heads);
    CHECK_THROWS({ compile(spec); }, code, {words});
  };
  refused({{"head", 0.4}, {"head", 0.4}}, "invalid-argument", "auxiliary \"head\" has a loss already");
  refused({{"head", 0.4}, {"b", 0.4}}, "invalid-argument", "auxiliary \"b\" has a loss already");
  refused({{"head", 0.4}, {"none", 0.4}}, "invalid-argument", "auxiliary \"none\" is no layer");
  refused({{"head", 0.4}, {"side", 0.4}}, "wrong-shape", "auxiliary \"side\" gives (N,5), expected logits (N,4)");
  refused({{"head", 0}}, "invalid-argument", "weight must be above 0");
}

TEST("what is neither biased nor prunable is neither") {
  auto spec = net({layer(kLinear, "a", {"input"}, 4)});
  spec.layers[0].bias = spec.layers[0].prunable = false;
  spec.layers[0].initialisation = Initialisation::kKaimingNormal;
  const auto n = compile(spec);
  CHECK_EQUAL(n->layout->parameters.size(), 1u);
  CHECK_EQUAL(n->operations[0].bias, -1);
  CHECK_EQUAL(n->prunable_count, 0);
  CHECK_EQUAL(n->weight_count, 32);
  CHECK(n->layout->parameters[0].initialisation == Initialisation::kKaimingNormal);
}

TEST("shapes that do not fit are named, both of them") {
  CHECK_THROWS({ compile(net({layer(kLinear, "fc1", {"input"}, 4)}, {1, 28, 28})); }, "wrong-shape",
               {"[linear fc1] wants (N,C) but reads (N,1,28,28): add a flatten layer"});
  CHECK_THROWS(
      {
        compile(net({layer(kLinear, "a", {"input"}, 3), layer(kLinear, "b", {"input"}, 4),
                     layer(kAdd, "sum", {"a", "b"})}));
      },
      "wrong-shape", {"[add sum] inputs (N,3) and (N,4) differ"});
  CHECK_THROWS({ compile(net({layer(kLinear, "a", {"input"}, 3)})); }, "wrong-shape",
               {"gives (N,3)", "(N,4)"});
}

TEST("descriptions that make no network are refused with the layer's name") {
  CHECK_THROWS({ compile(net({})); }, "invalid-argument", {"no layers"});
  CHECK_THROWS({ compile(net({layer(kLinear, "a", {"b"}, 4), layer(kLinear, "b", {"a"}, 4)})); },
               "invalid-argument", {"[linear a]", "\"b\"", "no layer before it"});
  CHECK_THROWS({ compile(net({layer(kLinear, "a", {"input"}, 4), layer(kLinear, "a", {"input"}, 4)})); },
               "invalid-argument", {"[linear a]", "taken"});
  CHECK_THROWS({ compile(net({layer(kLinear, "input", {"input"}, 4)})); }, "invalid-argument", {"taken"});
  CHECK_THROWS({ compile(net({layer(kLinear, "", {"input"}, 4)})); }, "invalid-argument", {"no name"});
  CHECK_THROWS({ compile(net({layer(kLinear, "idle", {"input"}, 4), layer(kLinear, "a", {"input"}, 4)})); },
               "invalid-argument", {"\"idle\""});
  CHECK_THROWS({ compile(net({layer(kLinear, "a", {}, 4)})); }, "invalid-argument", {"one input", "0"});
  CHECK_THROWS({ compile(net({layer(kRelu, "a", {"input", "input"})})); }, "invalid-argument",
               {"one input", "2"});
  CHECK_THROWS({ compile(net({layer(kAdd, "a", {"input"})})); }, "invalid-argument", {"at least two", "1"});
  CHECK_THROWS({ compile(net({layer(kRelu, "a", {"input"})}, {4})); }, "invalid-argument",
               {"nothing to train"});
  CHECK_THROWS({ compile(net({layer(kLinear, "a", {"input"}, 4)}, {})); }, "invalid-argument",
               {"input shape"});
  CHECK_THROWS({ compile(net({layer(kLinear, "a", {"input"}, 0)})); }, "invalid-argument",
               {"[linear a]", "at least 1"});
  CHECK_THROWS({ compile(net({layer(kLinear, "a", {"input"}, -4)})); }, "invalid-argument", {"-4"});
  CHECK_THROWS({ compile(net({layer(kLinear, "a", {"input"}, 4)}, {-1})); }, "invalid-argument",
               {"input", "-1"});
}

TEST("sizes that would overflow are refused") {
  CHECK_THROWS({ compile(net({layer(kLinear, "a", {"input"}, INT64_MAX)})); }, "invalid-argument",
               {"too many"});
  CHECK_THROWS({ compile(net({layer(kFlatten, "f", {"input"})}, {INT64_MAX, INT64_MAX, 2})); },
               "invalid-argument", {"too many"});
  std::vector<LayerSpec> layers;
  std::string before = "input";
  for (int i = 0; i < 20; ++i) {
    layers.push_back(layer(kLinear, "a" + std::to_string(i), {before}, 1 << 19));
    before = layers.back().name;
  }
  CHECK_THROWS({ compile(net(layers, {1 << 19})); }, "invalid-argument", {"too many parameters"});
}

TEST("compiling takes time in proportion to the layers") {
  std::vector<LayerSpec> layers;
  std::string before = "input";
  for (int i = 0; i < 30000; ++i) {
    layers.push_back(layer(kLinear, "a" + std::to_string(i), {before}, 4));
    layers.push_back(layer(kRelu, "r" + std::to_string(i), {layers.back().name}));
    before = layers.back().name;
  }
  CHECK_EQUAL(compile(net(layers, {4}))->operations.size(), 30000u);
}
