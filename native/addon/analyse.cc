#include "addon/handles.h"
#include "analyse/distance.h"
#include "analyse/interpolate.h"
#include "analyse/overlap.h"

namespace lth {
namespace {

Scope scope_from(const Napi::Value& v) {
  const std::string text = to_string(v, "scope");
  if (text == "masked") return Scope::kMasked;
  if (text == "all") return Scope::kAll;
  throw Error("invalid-argument", "[distance] scope: expected masked or all but received " + text);
}

Napi::Object to_js(Napi::Env env, const Distance& d) {
  Napi::Object out = Napi::Object::New(env);
  if (!d.name.empty()) out.Set("name", d.name);
  out.Set("distance", d.distance);
  out.Set("angle", std::isnan(d.angle) ? env.Null() : Napi::Value(Napi::Number::New(env, d.angle)));
  return out;
}

Napi::Object to_js(Napi::Env env, const Overlap& o) {
  Napi::Object out = Napi::Object::New(env);
  if (!o.name.empty()) out.Set("name", o.name);
  out.Set("size", static_cast<double>(o.size));
  out.Set("a", static_cast<double>(o.a));
  out.Set("b", static_cast<double>(o.b));
  out.Set("intersection", static_cast<double>(o.intersection));
  out.Set("union", static_cast<double>(o.union_));
  out.Set("chance", o.chance);
  return out;
}

// { ...total, layers }
template <typename All>
Napi::Value with_layers(Napi::Env env, const All& all) {
  Napi::Object out = to_js(env, all.total);
  Napi::Array layers = Napi::Array::New(env, all.layers.size());
  for (size_t i = 0; i < all.layers.size(); ++i) layers.Set(static_cast<uint32_t>(i), to_js(env, all.layers[i]));
  out.Set("layers", layers);
  return out;
}

Napi::Value snapshot_distance(const Napi::CallbackInfo& info) {
  return PromiseWorker<Distances>::run(
      info.Env(),
      [a = from_handle<const Snapshot>(info[0]), b = from_handle<const Snapshot>(info[1]),
       masks = from_handle<const Masks>(info[2]),
       scope = scope_from(info[3])] { return distance(*a, *b, *masks, scope); },
      with_layers<Distances>);
}

Napi::Value snapshot_interpolate(const Napi::CallbackInfo& info) {
  return PromiseWorker<std::shared_ptr<const Snapshot>>::run(
      info.Env(),
      [a = from_handle<const Snapshot>(info[0]), b = from_handle<const Snapshot>(info[1]),
       alpha = to_double(info[2], "alpha")] { return interpolate(*a, *b, alpha); },
      [](Napi::Env env, std::shared_ptr<const Snapshot> s) { return make_handle(env, std::move(s)); });
}

Napi::Value masks_overlap(const Napi::CallbackInfo& info) {
  return with_layers(info.Env(), overlap(*from_handle<const Masks>(info[0]), *from_handle<const Masks>(info[1])));
}

}  // namespace

void define_analyse(Napi::Object& exports) {
  define<snapshot_distance>(exports, "snapshotDistance");
  define<snapshot_interpolate>(exports, "snapshotInterpolate");
  define<masks_overlap>(exports, "masksOverlap");
}

}  // namespace lth
