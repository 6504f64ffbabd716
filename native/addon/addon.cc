// The addon's entry: what belongs to no other room, and the list of all.
#include <thread>

#include "addon/handles.h"
#include "core/file.h"
#include "cuda/cuda.h"
#include "exec/libtorch.h"

namespace lth {
namespace {

Napi::Value info(const Napi::CallbackInfo& call) {
  const Napi::Env env = call.Env();
  Napi::Object out = Napi::Object::New(env);
  out.Set("libtorch", libtorch_version());
  out.Set("libtorchPath", libtorch_path());
#if defined(__clang__)
  out.Set("compiler", "clang " __clang_version__);
#else
  out.Set("compiler", "gcc " __VERSION__);
#endif
  out.Set("isa", name_of(chosen_isa()));
  Napi::Array isas = Napi::Array::New(env);
  for (Isa isa : {Isa::kAvx512Bf16, Isa::kAvx512, Isa::kAvx2, Isa::kPortable}) {
    if (available(isa)) isas.Set(isas.Length(), name_of(isa));
  }
  out.Set("isaAvailable", isas);
  out.Set("kernels", std::to_string(kKernelsVersion) + "." + std::to_string(kConvolutionsVersion));
  out.Set("threads", static_cast<double>(std::thread::hardware_concurrency()));
  const CudaInfo cuda = cuda_info();
  Napi::Object c = Napi::Object::New(env);
  c.Set("built", cuda.built);
  c.Set("available", cuda.available);
  c.Set("devices", to_js(env, cuda.devices));
  c.Set("names", to_js(env, cuda.names));
  c.Set("reason", cuda.reason);
  out.Set("cuda", c);
  const JpegInfo jpeg = jpeg_info();
  Napi::Object j = Napi::Object::New(env);
  j.Set("built", jpeg.built);
  j.Set("libraries", jpeg.libraries);
  j.Set("encoder", jpeg.encoder);
  j.Set("reason", jpeg.reason);
  out.Set("jpeg", j);
  return out;
}

template <typename T>
bool dispose_as(const Napi::Value& v) {
  Box<T>* box = box_of<T>(v);
  if (box) box->dispose();
  return box != nullptr;
}

Napi::Value dispose(const Napi::CallbackInfo& call) {
  const Napi::Value v = call[0];
  if (Box<Session>* box = box_of<Session>(v)) {
    // What is going on keeps the session until its step is over, and joins it then: nobody waits for that here.
    if (box->value) box->value->abort();
    box->dispose();
  } else if (!dispose_as<const CompiledNetwork>(v) && !dispose_as<const Dataset>(v) &&
             !dispose_as<const Snapshot>(v) && !dispose_as<const Masks>(v) && !dispose_as<RunHandle>(v) &&
             !dispose_as<FileLock>(v) && !dispose_as<const PictureSet>(v) && !dispose_as<PictureStream>(v)) {
    throw Error("wrong-handle", "[addon] dispose: expected a handle");
  }
  return call.Env().Undefined();
}

Napi::Value lock_try(const Napi::CallbackInfo& call) {
  auto lock = FileLock::try_lock(to_string(call[0], "path"));
  if (!lock) return call.Env().Null();
  return make_handle(call.Env(), std::make_shared<FileLock>(std::move(*lock)));
}

Napi::Value lock_held(const Napi::CallbackInfo& call) {
  return Napi::Boolean::New(call.Env(), FileLock::held(to_string(call[0], "path")));
}

Napi::Value file_write(const Napi::CallbackInfo& call) {
  const HeldBytes held(call[1], "bytes");
  return PromiseWorker<Nothing>::run(
      call.Env(),
      [held, path = to_string(call[0], "path")] {
        write_atomically(path, {std::as_bytes(held.bytes())});
        return Nothing{};
      },
      undefined);
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  (void)env;
  define<info>(exports, "info");
  define<dispose>(exports, "dispose");
  define<lock_try>(exports, "lockTry");
  define<lock_held>(exports, "lockHeld");
  define<file_write>(exports, "fileWrite");
  define_networks(exports);
  define_data(exports);
  define_pictures(exports);
  define_sessions(exports);
  define_snapshots(exports);
  define_masks(exports);
  define_analyse(exports);
  define_bench(exports);
  define_tuning(exports);
  return exports;
}

}  // namespace
}  // namespace lth

static Napi::Object lth_init(Napi::Env env, Napi::Object exports) { return lth::init(env, exports); }
NODE_API_MODULE(lth_train, lth_init)
