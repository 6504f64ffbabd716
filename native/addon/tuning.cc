// The table by which products are chosen: as JavaScript has it, and its measurement.
#include "addon/measurement.h"
#include "exec/measure.h"

namespace lth {
namespace {

ProductCosts costs_from(const Napi::Value& v, const std::string& name) {
  const Napi::Object o = to_object(v, name);
  const auto cost = [&](const char* key) { return to_double(o.Get(key), name + "." + key); };
  return {cost("entryOfRun"), cost("entryOfPlace"), cost("gradientOfVector"), cost("gradientOfBand"), cost("splitOfVector")};
}

Napi::Value to_js(Napi::Env env, const ProductCosts& costs) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("entryOfRun", costs.entry_of_run);
  out.Set("entryOfPlace", costs.entry_of_place);
  out.Set("gradientOfVector", costs.gradient_of_vector);
  out.Set("gradientOfBand", costs.gradient_of_band);
  out.Set("splitOfVector", costs.split_of_vector);
  return out;
}

Napi::Value tuning_to_js(Napi::Env env, const Tuning& tuning) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("fp32", to_js(env, tuning.fp32));
  out.Set("bf16", to_js(env, tuning.bf16));
  out.Set("linear", to_js(env, tuning.linear));
  out.Set("wide", to_js(env, tuning.wide));
  return out;
}

Napi::Value tuning_builtin(const Napi::CallbackInfo& info) { return tuning_to_js(info.Env(), Tuning{}); }

Napi::Value tuning_name(const Napi::CallbackInfo& info) {
  const std::string name = name_of(tuning_from(info[0], "tuning"));
  return name.empty() ? info.Env().Null() : Napi::Value::From(info.Env(), name);
}

Napi::Value tuning_measure(const Napi::CallbackInfo& info) {
  const int threads = static_cast<int>(to_int(info[0], "threads", 1, 1024));
  const int rounds = static_cast<int>(to_int(info[1], "rounds", 1, 1000));
  return start_measurement<Tuning>(
      info.Env(),
      [threads, rounds, isa = chosen_isa()](const std::function<bool()>& stopping) {
        return measure_costs(isa, threads, rounds, stopping);
      },
      tuning_to_js);
}

}  // namespace

Tuning tuning_from(const Napi::Value& v, const std::string& name) {
  const Napi::Object o = to_object(v, name);
  Tuning t;
  t.fp32 = costs_from(o.Get("fp32"), name + ".fp32");
  t.bf16 = costs_from(o.Get("bf16"), name + ".bf16");
  t.linear = costs_from(o.Get("linear"), name + ".linear");
  t.wide = costs_from(o.Get("wide"), name + ".wide");
  check(t);
  return t;
}

void define_tuning(Napi::Object& exports) {
  define<tuning_builtin>(exports, "tuningBuiltin");
  define<tuning_name>(exports, "tuningName");
  define<tuning_measure>(exports, "tuningMeasure");
}

}  // namespace lth
