// Pictures in files, and the batches made of them.
#include <algorithm>
#include <chrono>
#include <thread>

#include "addon/measurement.h"
#include "data/decode_bench.h"
#include "data/picture_input.h"
#include "data/shard_pack.h"

namespace lth {
namespace {

CropRule crop_from(const Napi::Object& o) {
  CropRule rule;
  const std::string kind = to_string(o.Get("kind"), "crop.kind"), filter = to_string(o.Get("filter"), "crop.filter");
  if (kind == "random-resized") rule.kind = CropRule::kRandomResized;
  else if (kind == "scaled-random") rule.kind = CropRule::kScaledRandom;
  else if (kind == "centre") rule.kind = CropRule::kCentre;
  else if (kind == "central") rule.kind = CropRule::kCentral;
  else wrong_argument("crop.kind", "random-resized, scaled-random, centre or central");
  if (filter != "bilinear" && filter != "bicubic") wrong_argument("crop.filter", "bilinear or bicubic");
  rule.filter = filter == "bilinear" ? Filter::kBilinear : Filter::kBicubic;
  rule.size = to_int(o.Get("size"), "crop.size", 1, 4096);
  rule.flip = to_bool(o.Get("flip"), "crop.flip");
  const std::string colour = to_string(o.Get("colour"), "crop.colour");
  if (colour == "none") rule.colour = Colour::kNone;
  else if (colour == "brightness-chroma") rule.colour = Colour::kBrightnessChroma;
  else if (colour == "inception") rule.colour = Colour::kInception;
  else wrong_argument("crop.colour", "none, brightness-chroma or inception");
  const auto pair = [&](const char* name) {
    const std::vector<double> both = to_doubles(o.Get(name), name);
    if (both.size() != 2) wrong_argument(name, "two numbers");
    return both;
  };
  const auto area = pair("area"), aspect = pair("aspect"), side = pair("shortSide");
  rule.area_low = area[0];
  rule.area_high = area[1];
  rule.aspect_low = aspect[0];
  rule.aspect_high = aspect[1];
  rule.short_low = static_cast<int64_t>(std::clamp(side[0], 0.0, 1e6));
  rule.short_high = static_cast<int64_t>(std::clamp(side[1], 0.0, 1e6));
  rule.resize = to_int(o.Get("resize"), "crop.resize", 1, 8192);
  rule.fraction = to_double(o.Get("fraction"), "crop.fraction");
  check(rule);
  return rule;
}

Napi::Value pictures_open(const Napi::CallbackInfo& info) {
  const Napi::Object o = to_object(info[2], "options");
  return PromiseWorker<std::shared_ptr<const PictureSet>>::run(
      info.Env(),
      [names = HeldBytes(info[0], "names"), labels = to_int32s(info[1], "labels"),
       root = to_string(o.Get("root"), "options.root"),
       classes = static_cast<int>(to_int(o.Get("classes"), "options.classes", 1, 1 << 24)),
       digest = to_string(o.Get("digest"), "options.digest")]() -> std::shared_ptr<const PictureSet> {
        const auto bytes = names.bytes();
        return std::make_shared<PictureSet>(root, std::string(bytes.begin(), bytes.end()), labels, classes, digest);
      },
      [](Napi::Env env, std::shared_ptr<const PictureSet> set) { return make_handle(env, std::move(set)); });
}

Napi::Value pictures_open_shards(const Napi::CallbackInfo& info) {
  const Napi::Object o = to_object(info[2], "options");
  PictureShards shards;
  shards.files = to_vector<std::string>(o.Get("files"), "options.files", to_string);
  shards.rows = to_ints(o.Get("rows"), "options.rows");
  const Napi::Value begins = o.Get("begins"), lengths = o.Get("lengths");
  if (!begins.IsTypedArray() || begins.As<Napi::TypedArray>().TypedArrayType() != napi_float64_array) {
    wrong_argument("options.begins", "a Float64Array");
  }
  if (!lengths.IsTypedArray() || lengths.As<Napi::TypedArray>().TypedArrayType() != napi_uint32_array) {
    wrong_argument("options.lengths", "a Uint32Array");
  }
  const auto b = begins.As<Napi::Float64Array>();
  const auto l = lengths.As<Napi::Uint32Array>();
  shards.begins.assign(b.Data(), b.Data() + b.ElementLength());
  shards.lengths.assign(l.Data(), l.Data() + l.ElementLength());
  return PromiseWorker<std::shared_ptr<const PictureSet>>::run(
      info.Env(),
      [names = HeldBytes(info[0], "names"), labels = to_int32s(info[1], "labels"), shards = std::move(shards),
       classes = static_cast<int>(to_int(o.Get("classes"), "options.classes", 1, 1 << 24)),
       digest = to_string(o.Get("digest"), "options.digest")]() -> std::shared_ptr<const PictureSet> {
        const auto bytes = names.bytes();
        return std::make_shared<PictureSet>(shards, std::string(bytes.begin(), bytes.end()), labels, classes, digest);
      },
      [](Napi::Env env, std::shared_ptr<const PictureSet> set) { return make_handle(env, std::move(set)); });
}

Napi::Value packed_to_js(Napi::Env env, const PackedShard& shard) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("pictures", static_cast<double>(shard.pictures));
  out.Set("bytes", static_cast<double>(shard.bytes));
  out.Set("warnings", static_cast<double>(shard.warnings));
  Napi::Array broken = Napi::Array::New(env);
  for (const UnpackedPicture& one : shard.broken) {
    Napi::Object picture = Napi::Object::New(env);
    picture.Set("row", static_cast<double>(one.row));
    picture.Set("why", one.why);
    picture.Set("kept", one.kept);
    broken.Set(broken.Length(), picture);
  }
  out.Set("broken", broken);
  return out;
}

// A function that holds its packer.
Napi::Value shard_pack(const Napi::CallbackInfo& info) {
  const auto& packer = *static_cast<std::shared_ptr<ShardPacker>*>(info.Data());
  const Napi::Object o = to_object(info[0], "options");
  ShardOptions options;
  options.path = to_string(o.Get("path"), "options.path");
  const Napi::Object metadata = to_object(o.Get("metadata"), "options.metadata");
  const Napi::Array keys = metadata.GetPropertyNames();
  for (uint32_t i = 0; i < keys.Length(); ++i) {
    const std::string key = to_string(keys.Get(i), "options.metadata");
    options.metadata.emplace_back(key, to_string(metadata.Get(key), key));
  }
  options.from = to_int(o.Get("from"), "options.from");
  options.bytes = to_int(o.Get("bytes"), "options.bytes", 1);
  auto done = std::make_shared<std::atomic<int64_t>>(0);
  Napi::Value started = start_measurement<PackedShard>(
      info.Env(),
      [packer, options = std::move(options), done](const std::function<bool()>& stopping) {
        return packer->pack(options, stopping, *done);
      },
      packed_to_js);
  started.As<Napi::Object>().Set("done", Napi::Function::New(info.Env(), [done](const Napi::CallbackInfo& call) {
                                   return Napi::Number::New(call.Env(), static_cast<double>(done->load()));
                                 }));
  return started;
}

Napi::Value shard_packer(const Napi::CallbackInfo& info) {
  const Napi::Object o = to_object(info[1], "options");
  PackOptions options;
  options.short_side = to_int(o.Get("shortSide"), "options.shortSide", 0, 65500);
  options.quality = static_cast<int>(to_int(o.Get("quality"), "options.quality", 1, 100));
  options.threads = static_cast<int>(to_int(o.Get("threads"), "options.threads", 1, 1024));
  const auto packer = std::make_shared<ShardPacker>(from_handle<const PictureSet>(info[0]), options);
  // Of the packer's threads' lives.
  Napi::Value started = start_run(info.Env(), nullptr, info.Env().Undefined(), [&](RunEvents events) {
    return std::make_shared<Run>(
        [packer](Run& run) {
          constexpr std::chrono::milliseconds kLook{20};  // at whether it should stop
          while (!run.stopping()) std::this_thread::sleep_for(kLook);
          packer->stop();
          RunEnd end;
          end.state = RunEnd::kAborted;
          return end;
        },
        std::move(events));
  });
  auto* const held = new std::shared_ptr<ShardPacker>(packer);
  Napi::Function pack = Napi::Function::New(info.Env(), guarded<shard_pack>, "pack", held);
  pack.AddFinalizer([](Napi::Env, std::shared_ptr<ShardPacker>* last) { delete last; }, held);
  started.As<Napi::Object>().Set("pack", pack);
  return started;
}

Napi::Value dataset_of_pictures(const Napi::CallbackInfo& info) {
  const Napi::Object o = to_object(info[1], "options");
  FilePictures pictures{.set = from_handle<const PictureSet>(info[0]),
                        .training = crop_from(to_object(o.Get("training"), "training")),
                        .evaluation = crop_from(to_object(o.Get("evaluation"), "evaluation")),
                        .upright = to_bool(o.Get("upright"), "upright")};
  std::shared_ptr<const Dataset> data =
      lth::dataset_of_pictures(std::move(pictures), to_doubles(o.Get("mean"), "mean"), to_doubles(o.Get("std"), "std"));
  return make_handle(info.Env(), std::move(data));
}

Napi::Value pictures_stream(const Napi::CallbackInfo& info) {
  const Napi::Object o = to_object(info[1], "options");
  StreamOptions s;
  s.loader.crop = crop_from(to_object(o.Get("crop"), "crop"));
  s.loader.channels_last = to_bool(o.Get("channelsLast"), "channelsLast");
  s.loader.upright = to_bool(o.Get("upright"), "upright");
  s.loader.threads = static_cast<int>(to_int(o.Get("workers"), "workers", 1, 1024));
  s.loader.ahead = static_cast<int>(to_int(o.Get("ahead"), "ahead", 1, 1024));
  s.rows = to_int32s(o.Get("rows"), "rows");
  s.batch = to_int(o.Get("batch"), "batch", 1, 1 << 20);
  s.shuffle = to_bool(o.Get("shuffle"), "shuffle");
  s.seed = static_cast<uint64_t>(to_int(o.Get("seed"), "seed"));
  s.replicate = static_cast<uint32_t>(to_int(o.Get("replicate"), "replicate", 0, UINT32_MAX));
  s.noise = static_cast<uint64_t>(to_int(o.Get("noise"), "noise"));
  s.ranks = to_int(o.Get("ranks"), "ranks", 1, 1 << 20);
  s.rank = to_int(o.Get("rank"), "rank", 0, s.ranks - 1);
  s.from = to_int(o.Get("from"), "from", 0, INT32_MAX);
  s.until = to_int(o.Get("until"), "until", 0, INT32_MAX);
  const auto stream = std::make_shared<PictureStream>(from_handle<const PictureSet>(info[0]), std::move(s));
  // Of the loader's threads' lives: this one asks for batches and tells JavaScript of those that are made.
  Napi::Value started = start_run(info.Env(), nullptr, info[2], [&](RunEvents events) {
    return std::make_shared<Run>(
        [stream](Run& run) {
          constexpr std::chrono::milliseconds kLook{20};  // at whether it should stop
          struct Stop {
            PictureLoader& loader;
            ~Stop() { loader.stop(); }
          } const stop{stream->loader()};
          while (!run.stopping()) {
            stream->fill();
            if (stream->loader().ready()) run.announce(true);
            stream->loader().wait(kLook);
          }
          RunEnd end;
          end.state = RunEnd::kAborted;
          return end;
        },
        std::move(events));
  });
  started.As<Napi::Object>().Set("stream", make_handle(info.Env(), stream));
  return started;
}

template <typename Array, typename T>
Napi::Value view(Napi::Env env, const T* data, size_t n, std::shared_ptr<const PictureBatch> owner) {
  return Array::New(env, n, external_buffer(env, data, n * sizeof(T), std::move(owner)), 0);
}

Napi::Value pictures_take(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::shared_ptr<const PictureBatch> batch = from_handle<PictureStream>(info[0])->loader().try_take();
  if (!batch) return env.Null();
  Napi::Object out = Napi::Object::New(env);
  out.Set("step", static_cast<double>(batch->step));
  out.Set("images", view<Napi::Uint8Array>(env, batch->images.get(), static_cast<size_t>(batch->bytes()), batch));
  out.Set("labels", view<Napi::Int32Array>(env, batch->labels.data(), batch->labels.size(), batch));
  out.Set("rows", view<Napi::Int32Array>(env, batch->rows.data(), batch->rows.size(), batch));
  out.Set("warnings", static_cast<double>(batch->warnings));
  Napi::Array failures = Napi::Array::New(env);
  for (const PictureFailure& failure : batch->failures) {
    Napi::Object one = Napi::Object::New(env);
    one.Set("position", static_cast<double>(failure.position));
    one.Set("row", failure.row);
    one.Set("taken", failure.taken);
    one.Set("why", failure.why);
    failures.Set(failures.Length(), one);
  }
  out.Set("failures", failures);
  return out;
}

struct Decoded {
  int64_t height = 0, width = 0, warnings = 0;
  PictureCrop crop;
  std::shared_ptr<std::vector<uint8_t>> pixels;
};

Napi::Value to_js(Napi::Env env, Decoded decoded) {
  Napi::Object out = Napi::Object::New(env), box = Napi::Object::New(env);
  out.Set("height", static_cast<double>(decoded.height));
  out.Set("width", static_cast<double>(decoded.width));
  out.Set("warnings", static_cast<double>(decoded.warnings));
  box.Set("top", decoded.crop.box.top);
  box.Set("left", decoded.crop.box.left);
  box.Set("height", decoded.crop.box.height);
  box.Set("width", decoded.crop.box.width);
  out.Set("box", box);
  out.Set("cut", decoded.crop.cut);
  out.Set("flip", decoded.crop.flip);
  const size_t size = decoded.pixels->size();
  const void* data = decoded.pixels->data();
  out.Set("pixels", Napi::Uint8Array::New(env, size, external_buffer(env, data, size, std::move(decoded.pixels)), 0));
  return out;
}

Napi::Value picture_decode(const Napi::CallbackInfo& info) {
  return PromiseWorker<Decoded>::run(
      info.Env(),
      [file = HeldBytes(info[0], "file"), name = to_string(info[1], "name")] {
        PictureInput input;
        const Patch patch = input.decode(std::as_bytes(file.bytes()), name);
        Decoded decoded;
        decoded.height = patch.height;
        decoded.width = patch.width;
        decoded.warnings = input.warnings();
        decoded.pixels = std::make_shared<std::vector<uint8_t>>(static_cast<size_t>(patch.height * patch.width * 3));
        for (int64_t y = 0; y < patch.height; ++y) {
          std::copy_n(patch.pixels + y * patch.stride, patch.width * 3, decoded.pixels->data() + y * patch.width * 3);
        }
        return decoded;
      },
      to_js);
}

Napi::Value picture_crop_of(const Napi::CallbackInfo& info) {
  const Napi::Object o = to_object(info[2], "options");
  const CropKey key = {.seed = static_cast<uint64_t>(to_int(o.Get("seed"), "seed")),
                       .replicate = static_cast<uint32_t>(to_int(o.Get("replicate"), "replicate", 0, UINT32_MAX)),
                       .noise = static_cast<uint64_t>(to_int(o.Get("noise"), "noise")),
                       .epoch = static_cast<uint32_t>(to_int(o.Get("epoch"), "epoch", 0, UINT32_MAX)),
                       .example = to_int(o.Get("example"), "example")};
  return PromiseWorker<Decoded>::run(
      info.Env(),
      [file = HeldBytes(info[0], "file"), name = to_string(info[1], "name"), rule = crop_from(to_object(o.Get("crop"), "crop")),
       upright = to_bool(o.Get("upright"), "upright"), key] {
        PictureInput input;
        Decoded decoded;
        decoded.height = decoded.width = rule.size;
        decoded.pixels = std::make_shared<std::vector<uint8_t>>(static_cast<size_t>(3 * rule.size * rule.size));
        decoded.crop = input.make(std::as_bytes(file.bytes()), name, rule, key, upright,
                                  {.base = decoded.pixels->data(), .row = 3 * rule.size, .column = 3, .channel = 1});
        decoded.warnings = input.warnings();
        return decoded;
      },
      to_js);
}

Napi::Value times_to_js(Napi::Env env, const DecodeTimes& times) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("seconds", times.seconds);
  out.Set("pixels", times.pixels);
  return out;
}

Napi::Value bench_decode(const Napi::CallbackInfo& info) {
  return start_measurement<DecodeTimes>(
      info.Env(),
      [set = from_handle<const PictureSet>(info[0]), rows = to_int32s(info[1], "rows"),
       threads = static_cast<int>(to_int(info[2], "threads", 1, 1024))](const std::function<bool()>& stopping) {
        return time_decode(*set, rows, threads, stopping);
      },
      times_to_js);
}

}  // namespace

void define_pictures(Napi::Object& exports) {
  define<pictures_open>(exports, "picturesOpen");
  define<pictures_open_shards>(exports, "picturesOpenShards");
  define<shard_packer>(exports, "shardPacker");
  define<dataset_of_pictures>(exports, "datasetOfPictures");
  define<pictures_stream>(exports, "picturesStream");
  define<pictures_take>(exports, "picturesTake");
  define<picture_decode>(exports, "pictureDecode");
  define<picture_crop_of>(exports, "pictureCrop");
  define<bench_decode>(exports, "benchDecode");
}

}  // namespace lth
