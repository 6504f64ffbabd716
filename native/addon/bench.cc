// What benchmarks measure below the level of sessions.
#include "addon/measurement.h"
#include "exec/layer_bench.h"

namespace lth {
namespace {

Napi::Value product_to_js(Napi::Env env, const ProductTimes& times) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("dense", to_js(env, times.dense));
  out.Set("sparse", times.sparse.empty() ? env.Null() : Napi::Value(to_js(env, times.sparse)));
  out.Set("denseBytes", times.dense_bytes);
  out.Set("sparseBytes", times.sparse_bytes);
  out.Set("difference", times.difference);
  return out;
}

Napi::Value layer_to_js(Napi::Env env, const LayerTimes& times) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("weights", static_cast<double>(times.weights));
  out.Set("remaining", static_cast<double>(times.remaining));
  out.Set("denseOperations", times.dense_operations);
  out.Set("sparseOperations", times.sparse_operations);
  out.Set("forward", product_to_js(env, times.forward));
  out.Set("inputGradient", times.input_gradient ? product_to_js(env, *times.input_gradient) : env.Null());
  out.Set("weightGradient", product_to_js(env, times.weight_gradient));
  return out;
}

Napi::Value limits_to_js(Napi::Env env, const MachineLimits& limits) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("fp32", limits.fp32);
  out.Set("bf16", limits.bf16 > 0 ? Napi::Value(Napi::Number::New(env, limits.bf16)) : env.Null());
  out.Set("bandwidth", limits.bandwidth);
  return out;
}

Napi::Value bench_layer(const Napi::CallbackInfo& info) {
  const Napi::Object o = to_object(info[2], "options");
  LayerBenchOptions options;
  options.batch = to_int(o.Get("batch"), "batch", 1, 1 << 20);
  options.bf16 = to_bool(o.Get("bf16"), "bf16");
  options.threads = static_cast<int>(to_int(o.Get("threads"), "threads", 1, 1024));
  options.rounds = to_int(o.Get("rounds"), "rounds", 1, 100000);
  options.sample = to_double(o.Get("sample"), "sample");
  if (!(options.sample >= 0 && options.sample <= 3600)) wrong_argument("sample", "seconds between 0 and 3600");
  return start_measurement<LayerTimes>(
      info.Env(),
      [network = from_handle<const CompiledNetwork>(info[0]), masks = from_handle<const Masks>(info[1]),
       options](const Stopping& stopping) { return time_layer(network, masks, options, stopping); },
      layer_to_js);
}

Napi::Value bench_limits(const Napi::CallbackInfo& info) {
  return start_measurement<MachineLimits>(
      info.Env(),
      [threads = static_cast<int>(to_int(info[0], "threads", 1, 1024))](const Stopping& stopping) {
        return measure_limits(threads, stopping);
      },
      limits_to_js);
}

}  // namespace

void define_bench(Napi::Object& exports) {
  define<bench_layer>(exports, "benchLayer");
  define<bench_limits>(exports, "benchLimits");
}

}  // namespace lth
