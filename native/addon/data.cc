#include "addon/handles.h"

namespace lth {
namespace {

Napi::Value dataset_from_idx(const Napi::CallbackInfo& info) {
  const Napi::Object o = to_object(info[2], "options");
  return PromiseWorker<std::shared_ptr<const Dataset>>::run(
      info.Env(),
      [images = HeldBytes(info[0], "images"), labels = HeldBytes(info[1], "labels"),
       classes = static_cast<int>(to_int(o.Get("classes"), "options.classes", 1, 1 << 24)),
       images_name = to_string(o.Get("imagesName"), "options.imagesName"),
       labels_name = to_string(o.Get("labelsName"), "options.labelsName"),
       digest = to_string(o.Get("digest"), "options.digest")]() -> std::shared_ptr<const Dataset> {
        auto data = lth::dataset_from_idx(images.bytes(), labels.bytes(), classes, images_name, labels_name);
        data->digest = digest;
        return data;
      },
      [](Napi::Env env, std::shared_ptr<const Dataset> data) { return make_handle(env, std::move(data)); });
}

Napi::Value dataset_info(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto data = from_handle<const Dataset>(info[0]);
  Napi::Object out = Napi::Object::New(env);
  out.Set("count", static_cast<double>(data->count));
  out.Set("shape", shape_to_js(env, data->shape));
  out.Set("classes", data->classes);
  out.Set("digest", data->digest);
  out.Set("mean", to_js(env, data->mean));
  out.Set("std", to_js(env, data->std));
  return out;
}

}  // namespace

void define_data(Napi::Object& exports) {
  define<dataset_from_idx>(exports, "datasetFromIdx");
  define<dataset_info>(exports, "datasetInfo");
}

}  // namespace lth
