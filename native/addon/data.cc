#include "addon/handles.h"
#include "data/cifar.h"

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

Napi::Value dataset_from_bytes(const Napi::CallbackInfo& info) {
  const Napi::Object o = to_object(info[2], "options");
  const auto extent = [](const Napi::Value& v, const std::string& name) { return to_int(v, name, 1, 1 << 16); };
  auto shape = to_vector<int64_t>(o.Get("shape"), "options.shape", extent);
  if (shape.empty() || shape.size() > 3) wrong_argument("options.shape", "one to three numbers");
  return PromiseWorker<std::shared_ptr<const Dataset>>::run(
      info.Env(),
      [images = HeldBytes(info[0], "images"), labels = to_int32s(info[1], "labels"), shape = std::move(shape),
       classes = static_cast<int>(to_int(o.Get("classes"), "options.classes", 1, 1 << 24)),
       digest = to_string(o.Get("digest"), "options.digest")]() -> std::shared_ptr<const Dataset> {
        auto data = lth::dataset_from_bytes(images.bytes(), labels, shape, classes);
        data->digest = digest;
        return data;
      },
      [](Napi::Env env, std::shared_ptr<const Dataset> data) { return make_handle(env, std::move(data)); });
}

CifarLayout layout_from(const Napi::Object& o) {
  return {.classes = static_cast<int>(to_int(o.Get("classes"), "options.classes", 1, 256)),
          .coarse = static_cast<int>(to_int(o.Get("coarse"), "options.coarse", 0, 256))};
}

Napi::Value dataset_from_cifar(const Napi::CallbackInfo& info) {
  const Napi::Object o = to_object(info[1], "options");
  const auto names = to_vector<std::string>(o.Get("names"), "options.names", to_string);
  const auto files = to_vector<HeldBytes>(
      info[0], "files", [](const Napi::Value& v, const std::string& name) { return HeldBytes(v, name); });
  if (files.empty() || files.size() != names.size()) wrong_argument("files", "as many as options.names");
  return PromiseWorker<std::shared_ptr<const Dataset>>::run(
      info.Env(),
      [files, names, layout = layout_from(o),
       digest = to_string(o.Get("digest"), "options.digest")]() -> std::shared_ptr<const Dataset> {
        std::vector<CifarFile> all;
        for (size_t i = 0; i < files.size(); ++i) all.push_back({files[i].bytes(), names[i]});
        auto data = lth::dataset_from_cifar(all, layout);
        data->digest = digest;
        return data;
      },
      [](Napi::Env env, std::shared_ptr<const Dataset> data) { return make_handle(env, std::move(data)); });
}

Napi::Value cifar_records(const Napi::CallbackInfo& info) {
  using Records = std::shared_ptr<std::vector<uint8_t>>;
  const Napi::Object o = to_object(info[1], "options");
  return PromiseWorker<Records>::run(
      info.Env(),
      [bytes = HeldBytes(info[0], "pickle"), layout = layout_from(o), name = to_string(o.Get("name"), "options.name")] {
        return std::make_shared<std::vector<uint8_t>>(lth::cifar_records({bytes.bytes(), name}, layout));
      },
      [](Napi::Env env, Records records) -> Napi::Value {
        const size_t size = records->size();
        const void* data = records->data();
        return Napi::Uint8Array::New(env, size, external_buffer(env, data, size, std::move(records)), 0);
      });
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
  define<dataset_from_bytes>(exports, "datasetFromBytes");
  define<dataset_from_cifar>(exports, "datasetFromCifar");
  define<cifar_records>(exports, "cifarRecords");
  define<dataset_info>(exports, "datasetInfo");
}

}  // namespace lth
