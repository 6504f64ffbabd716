#include "addon/handles.h"

namespace lth {
namespace {

LayerSpec::Type layer_type(const std::string& name) {
  if (name == "flatten") return LayerSpec::kFlatten;
  if (name == "linear") return LayerSpec::kLinear;
  if (name == "relu") return LayerSpec::kRelu;
  if (name == "add") return LayerSpec::kAdd;
  if (name == "conv") return LayerSpec::kConvolution;
  if (name == "batchnorm") return LayerSpec::kBatchNorm;
  if (name == "maxpool") return LayerSpec::kMaxPool;
  if (name == "globalpool") return LayerSpec::kGlobalPool;
  if (name == "avgpool") return LayerSpec::kAveragePool;
  if (name == "concat") return LayerSpec::kConcat;
  if (name == "dropout") return LayerSpec::kDropout;
  throw Error("invalid-argument",
              "[network] unknown layer type \"" + name +
                  "\": expected flatten, linear, relu, add, concat, conv, batchnorm, maxpool, avgpool, globalpool or dropout");
}

Initialisation initialisation(const std::string& name) {
  if (name == "glorot-normal") return Initialisation::kGlorotNormal;
  if (name == "kaiming-normal") return Initialisation::kKaimingNormal;
  if (name == "glorot-uniform") return Initialisation::kGlorotUniform;
  if (name == "variance-scaling") return Initialisation::kVarianceScaling;
  if (name == "normal") return Initialisation::kNormal;
  if (name == "truncated-normal") return Initialisation::kTruncatedNormal;
  throw Error("invalid-argument",
              "[network] unknown initialisation \"" + name +
                  "\": expected glorot-normal, glorot-uniform, kaiming-normal, variance-scaling, normal or truncated-normal");
}

Pair pair_from(const Napi::Value& v, const std::string& name) {
  const std::vector<int64_t> both = to_ints(v, name);
  if (both.size() != 2) throw Error("invalid-argument", "[addon] " + name + ": expected height and width");
  return {both[0], both[1]};
}

LayerSpec layer_from(const Napi::Value& v, const std::string&) {
  const Napi::Object o = to_object(v, "layer");
  LayerSpec layer;
  layer.name = to_string(o.Get("name"), "layer.name");
  layer.type = layer_type(to_string(o.Get("type"), "layer.type"));
  layer.inputs = to_vector<std::string>(o.Get("inputs"), "layer.inputs", to_string);
  layer.units = to_int(o.Get("units"), "layer.units");
  layer.bias = to_bool(o.Get("bias"), "layer.bias");
  layer.prunable = to_bool(o.Get("prunable"), "layer.prunable");
  layer.initialisation = initialisation(to_string(o.Get("initialisation"), "layer.initialisation"));
  if (o.Has("initialisationScale")) layer.initialisation_scale = to_double(o.Get("initialisationScale"), "layer.initialisationScale");
  if (layer.type == LayerSpec::kConvolution || layer.type == LayerSpec::kMaxPool || layer.type == LayerSpec::kAveragePool) {
    layer.kernel = pair_from(o.Get("kernel"), "layer.kernel");
    layer.stride = pair_from(o.Get("stride"), "layer.stride");
    layer.padding = pair_from(o.Get("padding"), "layer.padding");
  }
  if (o.Has("ceil")) layer.ceil = to_bool(o.Get("ceil"), "layer.ceil");
  if (o.Has("zeroScale")) layer.zero_scale = to_bool(o.Get("zeroScale"), "layer.zeroScale");
  if (layer.type == LayerSpec::kDropout) layer.probability = to_double(o.Get("probability"), "layer.probability");
  if (layer.type == LayerSpec::kBatchNorm) {
    layer.epsilon = to_double(o.Get("epsilon"), "layer.epsilon");
    layer.momentum = to_double(o.Get("momentum"), "layer.momentum");
  }
  return layer;
}

AuxiliarySpec auxiliary_from(const Napi::Value& v, const std::string&) {
  const Napi::Object o = to_object(v, "auxiliary");
  return {to_string(o.Get("layer"), "auxiliary.layer"), to_double(o.Get("weight"), "auxiliary.weight")};
}

Napi::Value network_compile(const Napi::CallbackInfo& info) {
  const Napi::Object o = to_object(info[0], "network");
  NetworkSpec spec;
  spec.name = to_string(o.Get("name"), "network.name");
  spec.input = to_ints(o.Get("input"), "network.input");
  spec.classes = static_cast<int>(to_int(o.Get("classes"), "network.classes", 1, 1 << 24));
  spec.layers = to_vector<LayerSpec>(o.Get("layers"), "network.layers", layer_from);
  if (o.Has("auxiliary")) {
    spec.auxiliary = to_vector<AuxiliarySpec>(o.Get("auxiliary"), "network.auxiliary", auxiliary_from);
  }
  return make_handle<const CompiledNetwork>(info.Env(), compile(spec));
}

Napi::Value network_summary(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto network = from_handle<const CompiledNetwork>(info[0]);
  Napi::Object out = Napi::Object::New(env);
  out.Set("name", network->spec.name);
  Napi::Array parameters = Napi::Array::New(env);
  for (const ParameterSpec& p : network->layout->parameters) {
    Napi::Object one = Napi::Object::New(env);
    one.Set("name", p.name);
    one.Set("shape", shape_to_js(env, p.shape));
    one.Set("size", static_cast<double>(p.size));
    one.Set("prunable", p.prunable);
    one.Set("weight", p.weight);
    one.Set("trainable", p.trainable);
    parameters.Set(parameters.Length(), one);
  }
  out.Set("parameters", parameters);
  Napi::Object counts = Napi::Object::New(env);
  counts.Set("parameters", static_cast<double>(network->parameter_count));
  counts.Set("weights", static_cast<double>(network->weight_count));
  counts.Set("prunable", static_cast<double>(network->prunable_count));
  out.Set("counts", counts);
  out.Set("flops", static_cast<double>(network->flops));
  out.Set("operations", to_js(env, network->operation_lines));
  Napi::Array products = Napi::Array::New(env);
  for (const Operation& op : network->operations) {
    const bool convolution = op.type == Operation::kConvolution;
    if (!convolution && op.type != Operation::kLinear) continue;
    const Value &in = network->values[static_cast<size_t>(op.inputs[0])], &to = network->values[static_cast<size_t>(op.output)];
    Napi::Object one = Napi::Object::New(env);
    one.Set("layer", op.name);
    one.Set("weight", network->layout->parameters[static_cast<size_t>(op.weight)].name);
    one.Set("type", convolution ? "conv" : "linear");
    one.Set("shape", shape_to_js(env, network->layout->parameters[static_cast<size_t>(op.weight)].shape));
    one.Set("input", shape_to_js(env, convolution ? in.shape : std::vector<int64_t>{in.features}));
    one.Set("output", shape_to_js(env, convolution ? to.shape : std::vector<int64_t>{to.features}));
    one.Set("stride", shape_to_js(env, {op.stride.h, op.stride.w}));
    one.Set("padding", shape_to_js(env, {op.padding.h, op.padding.w}));
    one.Set("inputGradient", !network->holds_examples(op.inputs[0]));
    products.Set(products.Length(), one);
  }
  out.Set("products", products);
  return out;
}

}  // namespace

void define_networks(Napi::Object& exports) {
  define<network_compile>(exports, "networkCompile");
  define<network_summary>(exports, "networkSummary");
}

}  // namespace lth
