#include <map>

#include "addon/handles.h"
#include "core/snapshot_file.h"
#include "core/state_dict.h"

namespace lth {
namespace {

void append_tensors(Napi::Env env, Napi::Array& out, const std::shared_ptr<const Snapshot>& snapshot,
                    const std::shared_ptr<Account>& account, const Arena& arena, const std::string& prefix,
                    const char* role) {
  for (const ParameterSpec& p : snapshot->layout->parameters) {
    const bool averages = role == std::string("average");
    if (!p.trainable && !prefix.empty() && !averages) continue;  // the optimiser remembers nothing of running statistics
    const int64_t element = bytes_of(snapshot->dtype);
    Napi::Object one = Napi::Object::New(env);
    one.Set("name", prefix + p.name);
    one.Set("role", p.trainable || averages ? role : "buffer");
    one.Set("shape", shape_to_js(env, p.shape));
    one.Set("dtype", snapshot->dtype == Dtype::kFloat32 ? "fp32" : "fp64");
    one.Set("data", external_buffer(env, arena.data() + p.offset * element, static_cast<size_t>(p.size * element),
                                    snapshot, account));
    out.Set(out.Length(), one);
  }
}

Napi::Value snapshot_info(const Napi::CallbackInfo& info) {
  const auto snapshot = from_handle<const Snapshot>(info[0]);
  Napi::Object out = Napi::Object::New(info.Env());
  out.Set("step", static_cast<double>(snapshot->step));
  out.Set("bytes", static_cast<double>(snapshot->bytes()));
  return out;
}

Napi::Value snapshot_tensors(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto snapshot = from_handle<const Snapshot>(info[0]);
  Napi::Array out = Napi::Array::New(env);
  const auto account = account_of<const Snapshot>(info[0]);
  append_tensors(env, out, snapshot, account, snapshot->parameters, "", "parameter");
  for (const Snapshot::State& state : snapshot->optimiser) {
    append_tensors(env, out, snapshot, account, state.values, state.name + ".", "optimiser");
  }
  if (snapshot->average.size()) append_tensors(env, out, snapshot, account, snapshot->average, "average.", "average");
  return out;
}

std::map<std::string, std::string> metadata_from(const Napi::Value& v) {
  const Napi::Object o = to_object(v, "metadata");
  std::map<std::string, std::string> out;
  const Napi::Array keys = o.GetPropertyNames();
  for (uint32_t i = 0; i < keys.Length(); ++i) {
    const std::string key = to_string(keys.Get(i), "metadata key");
    out[key] = to_string(o.Get(key), "metadata." + key);
  }
  return out;
}

Napi::Value snapshot_write(const Napi::CallbackInfo& info) {
  return PromiseWorker<Nothing>::run(
      info.Env(),
      [snapshot = from_handle<const Snapshot>(info[0]), path = to_string(info[1], "path"),
       metadata = metadata_from(info[2]), with_optimiser = to_bool(info[3], "optimiser")] {
        write_snapshot(*snapshot, path, metadata, with_optimiser);
        return Nothing{};
      },
      undefined);
}

Napi::Value masks_write(const Napi::CallbackInfo& info) {
  return PromiseWorker<Nothing>::run(
      info.Env(),
      [masks = from_handle<const Masks>(info[0]), path = to_string(info[1], "path"), metadata = metadata_from(info[2])] {
        write_masks(*masks, path, metadata);
        return Nothing{};
      },
      undefined);
}

Napi::Value snapshot_read(const Napi::CallbackInfo& info) {
  return PromiseWorker<std::shared_ptr<const Snapshot>>::run(
      info.Env(),
      [network = from_handle<const CompiledNetwork>(info[0]), path = to_string(info[1], "path")] {
        return std::shared_ptr<const Snapshot>(read_snapshot(network->layout, path));
      },
      [](Napi::Env env, std::shared_ptr<const Snapshot> s) { return make_handle(env, std::move(s)); });
}

Napi::Value snapshot_from_state_dict(const Napi::CallbackInfo& info) {
  return PromiseWorker<std::shared_ptr<const Snapshot>>::run(
      info.Env(),
      [network = from_handle<const CompiledNetwork>(info[0]), path = to_string(info[1], "path")] {
        return std::shared_ptr<const Snapshot>(read_state_dict(network->layout, path));
      },
      [](Napi::Env env, std::shared_ptr<const Snapshot> s) { return make_handle(env, std::move(s)); });
}

Napi::Value masks_read(const Napi::CallbackInfo& info) {
  return PromiseWorker<std::shared_ptr<const Masks>>::run(
      info.Env(),
      [network = from_handle<const CompiledNetwork>(info[0]), path = to_string(info[1], "path")] {
        return std::shared_ptr<const Masks>(read_masks(network->layout, path));
      },
      [](Napi::Env env, std::shared_ptr<const Masks> m) { return make_handle(env, std::move(m)); });
}

}  // namespace

void define_snapshots(Napi::Object& exports) {
  define<snapshot_info>(exports, "snapshotInfo");
  define<snapshot_tensors>(exports, "snapshotTensors");
  define<snapshot_write>(exports, "snapshotWrite");
  define<snapshot_read>(exports, "snapshotRead");
  define<snapshot_from_state_dict>(exports, "snapshotFromStateDict");
  define<masks_write>(exports, "masksWrite");
  define<masks_read>(exports, "masksRead");
}

}  // namespace lth
