// The table by which products are chosen: as JavaScript has it, and its measurement.
#include "addon/measurement.h"
#include "exec/measure.h"

namespace lth {
namespace {

Napi::Value tuning_to_js(Napi::Env env, const Tuning& tuning) {
  Napi::Object out = Napi::Object::New(env);
  for (const TuningPart& part : kTuningParts) {
    Napi::Object costs = Napi::Object::New(env);
    for (const TuningCost& cost : kTuningCosts) costs.Set(cost.name, (tuning.*part.costs).*cost.value);
    out.Set(part.name, costs);
  }
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
  for (const TuningPart& part : kTuningParts) {
    const std::string of = name + "." + part.name;
    const Napi::Object costs = to_object(o.Get(part.name), of);
    for (const TuningCost& cost : kTuningCosts) {
      (t.*part.costs).*cost.value = to_double(costs.Get(cost.name), of + "." + cost.name);
    }
  }
  check(t);
  return t;
}

void define_tuning(Napi::Object& exports) {
  define<tuning_builtin>(exports, "tuningBuiltin");
  define<tuning_name>(exports, "tuningName");
  define<tuning_measure>(exports, "tuningMeasure");
}

}  // namespace lth
