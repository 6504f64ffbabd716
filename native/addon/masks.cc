#include <map>

#include "addon/handles.h"
#include "analyse/mask_levels.h"
#include "analyse/prune.h"
#include "analyse/random_mask.h"

namespace lth {
namespace {

Napi::Value masks_ones(const Napi::CallbackInfo& info) {
  const auto network = from_handle<const CompiledNetwork>(info[0]);
  return make_handle<const Masks>(info.Env(), std::make_shared<const Masks>(all_ones(network->layout)));
}

Napi::Value handle_of(Napi::Env env, std::shared_ptr<const Masks> masks) { return make_handle(env, std::move(masks)); }

Napi::Value masks_prune(const Napi::CallbackInfo& info) {
  const Napi::Object o = to_object(info[2], "options");
  PruneOptions p;
  p.fraction = to_double(o.Get("fraction"), "fraction");
  p.levels = static_cast<int>(to_int(o.Get("levels"), "levels", 1, 100000));
  const std::string pooling = to_string(o.Get("pooling"), "pooling");
  if (pooling != "global" && pooling != "layerwise") {
    throw Error("invalid-argument", "[prune] pooling: expected global or layerwise but received " + pooling);
  }
  p.layerwise = pooling == "layerwise";
  p.highest = to_bool(o.Get("highest"), "highest");
  const Napi::Object rates = to_object(o.Get("rates"), "rates");
  const Napi::Array names = rates.GetPropertyNames();
  for (uint32_t i = 0; i < names.Length(); ++i) {
    const std::string name = to_string(names.Get(i), "rates");
    p.rates[name] = to_double(rates.Get(name), "rates." + name);
  }
  return PromiseWorker<std::shared_ptr<const Masks>>::run(
      info.Env(),
      [masks = from_handle<const Masks>(info[0]), weights = from_handle<const Snapshot>(info[1]), p] {
        return prune(*masks, *weights, p);
      },
      handle_of);
}

Napi::Value masks_random(const Napi::CallbackInfo& info) {
  return PromiseWorker<std::shared_ptr<const Masks>>::run(
      info.Env(),
      [masks = from_handle<const Masks>(info[0]), seed = static_cast<uint64_t>(to_int(info[1], "seed")),
       replicate = static_cast<uint32_t>(to_int(info[2], "replicate", 0, UINT32_MAX))] {
        return random_masks(*masks, seed, replicate);
      },
      handle_of);
}

Napi::Value masks_prune_by_scores(const Napi::CallbackInfo& info) {
  return PromiseWorker<std::shared_ptr<const Masks>>::run(
      info.Env(),
      [masks = from_handle<const Masks>(info[0]), scores = from_handle<const Snapshot>(info[1]),
       remaining = to_int(info[2], "remaining"), highest = to_bool(info[3], "highest")] {
        return prune_by_scores(*masks, *scores, remaining, highest);
      },
      handle_of);
}

Napi::Value masks_random_scores(const Napi::CallbackInfo& info) {
  return PromiseWorker<std::shared_ptr<const Snapshot>>::run(
      info.Env(),
      [network = from_handle<const CompiledNetwork>(info[0]), seed = static_cast<uint64_t>(to_int(info[1], "seed")),
       replicate = static_cast<uint32_t>(to_int(info[2], "replicate", 0, UINT32_MAX))] {
        return random_scores(network->layout, seed, replicate);
      },
      [](Napi::Env env, std::shared_ptr<const Snapshot> scores) { return make_handle(env, std::move(scores)); });
}

Napi::Value masks_from_bits(const Napi::CallbackInfo& info) {
  const auto network = from_handle<const CompiledNetwork>(info[0]);
  const Napi::Object o = to_object(info[1], "bits");
  const Napi::Array names = o.GetPropertyNames();
  std::map<std::string, std::span<const uint8_t>> bits;
  for (uint32_t i = 0; i < names.Length(); ++i) {
    const std::string name = to_string(names.Get(i), "bits");
    bits[name] = to_bytes(o.Get(name), "bits." + name);
  }
  return make_handle<const Masks>(info.Env(), lth::masks_from_bits(network->layout, bits));
}

Napi::Value masks_tensors(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto masks = from_handle<const Masks>(info[0]);
  Napi::Array out = Napi::Array::New(env);
  for (size_t i = 0; i < masks->layout->parameters.size(); ++i) {
    const ParameterSpec& p = masks->layout->parameters[i];
    if (!p.prunable) continue;
    Napi::Object one = Napi::Object::New(env);
    one.Set("name", p.name);
    one.Set("shape", shape_to_js(env, p.shape));
    one.Set("size", static_cast<double>(p.size));
    one.Set("remaining", static_cast<double>(masks->remaining[i]));
    one.Set("bits", external_buffer(env, masks->words.data() + p.offset / 64,
                                    static_cast<size_t>((p.size + 63) / 64 * 8), masks,
                                    account_of<const Masks>(info[0])));
    out.Set(out.Length(), one);
  }
  return out;
}

Napi::Value masks_levels(const Napi::CallbackInfo& info) {
  if (!info[0].IsArray()) wrong_argument("masks", "an array");
  const Napi::Array array = info[0].As<Napi::Array>();
  std::vector<std::shared_ptr<const Masks>> masks;
  for (uint32_t i = 0; i < array.Length(); ++i) masks.push_back(from_handle<const Masks>(array.Get(i)));
  return PromiseWorker<std::shared_ptr<const std::vector<uint8_t>>>::run(
      info.Env(),
      [masks = std::move(masks)] { return std::make_shared<const std::vector<uint8_t>>(levels_of(masks)); },
      [](Napi::Env env, std::shared_ptr<const std::vector<uint8_t>> levels) -> Napi::Value {
        return Napi::Uint8Array::New(env, levels->size(), external_buffer(env, levels->data(), levels->size(), levels), 0);
      });
}

Napi::Value masks_at_level(const Napi::CallbackInfo& info) {
  const auto network = from_handle<const CompiledNetwork>(info[0]);
  const HeldBytes held(info[1], "levels");
  return PromiseWorker<std::shared_ptr<const Masks>>::run(
      info.Env(),
      [network, held, level = static_cast<int>(to_int(info[2], "level", 0, 255))] {
        return masks_at(network->layout, held.bytes(), level);
      },
      handle_of);
}

Napi::Value masks_nested(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(),
                            is_nested(*from_handle<const Masks>(info[0]), *from_handle<const Masks>(info[1])));
}

Napi::Value masks_violations(const Napi::CallbackInfo& info) {
  return PromiseWorker<int64_t>::run(
      info.Env(),
      [masks = from_handle<const Masks>(info[0]), snapshot = from_handle<const Snapshot>(info[1])] {
        return pruned_but_not_zero(*masks, *snapshot);
      },
      [](Napi::Env env, int64_t n) -> Napi::Value { return Napi::Number::New(env, static_cast<double>(n)); });
}

Napi::Value pruned_count_of(const Napi::CallbackInfo& info) {
  const int64_t remaining = to_int(info[1], "remaining");
  return Napi::Number::New(info.Env(),
                           static_cast<double>(pruned_count(to_double(info[0], "fraction"), remaining)));
}

}  // namespace

void define_masks(Napi::Object& exports) {
  define<masks_ones>(exports, "masksOnes");
  define<masks_prune>(exports, "masksPrune");
  define<masks_random>(exports, "masksRandom");
  define<masks_prune_by_scores>(exports, "masksPruneByScores");
  define<masks_random_scores>(exports, "masksRandomScores");
  define<masks_from_bits>(exports, "masksFromBits");
  define<masks_tensors>(exports, "masksTensors");
  define<masks_levels>(exports, "masksLevels");
  define<masks_at_level>(exports, "masksAtLevel");
  define<masks_nested>(exports, "masksNested");
  define<masks_violations>(exports, "masksViolations");
  define<pruned_count_of>(exports, "prunedCount");
}

}  // namespace lth
