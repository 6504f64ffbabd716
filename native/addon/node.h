// The one include site of node-addon-api, with its settings.
#pragma once
#define NAPI_CPP_EXCEPTIONS
#ifndef NAPI_VERSION
#define NAPI_VERSION 9
#endif
#include <napi.h>

#include <cmath>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/error.h"
#include "exec/libtorch.h"

namespace lth {

// A JavaScript Error with a `code`; the stack is the caller's.
inline Napi::Error js_error(Napi::Env env, const std::string& code, const std::string& message) {
  Napi::Error error = Napi::Error::New(env, message);
  error.Value().Set("code", Napi::String::New(env, code));
  return error;
}

// Exceptions are converted once, here at the addon's edge.
template <Napi::Value (*F)(const Napi::CallbackInfo&)>
Napi::Value guarded(const Napi::CallbackInfo& info) {
  try {
    return F(info);
  } catch (const Napi::Error&) {
    throw;
  } catch (...) {
    const Failure failure = failure_of(std::current_exception());
    throw js_error(info.Env(), failure.code, failure.message);
  }
}

template <Napi::Value (*F)(const Napi::CallbackInfo&)>
void define(Napi::Object& exports, const char* name) {
  exports.Set(name, Napi::Function::New(exports.Env(), guarded<F>, name));
}

// ------------------------------------------------------------------------------------------- arguments

[[noreturn]] inline void wrong_argument(const std::string& name, const char* wanted) {
  throw Error("invalid-argument", "[addon] " + name + ": expected " + wanted);
}

inline std::string to_string(const Napi::Value& v, const std::string& name) {
  if (!v.IsString()) wrong_argument(name, "a string");
  return v.As<Napi::String>().Utf8Value();
}
inline double to_double(const Napi::Value& v, const std::string& name) {
  if (!v.IsNumber()) wrong_argument(name, "a number");
  return v.As<Napi::Number>().DoubleValue();
}
inline bool to_bool(const Napi::Value& v, const std::string& name) {
  if (!v.IsBoolean()) wrong_argument(name, "a boolean");
  return v.As<Napi::Boolean>().Value();
}
// A whole number that a double holds exactly.
inline int64_t to_int(const Napi::Value& v, const std::string& name, int64_t low = 0,
                      int64_t high = int64_t{1} << 53) {
  const double x = to_double(v, name);
  if (!(x >= static_cast<double>(low) && x <= static_cast<double>(high)) || x != std::floor(x)) {
    throw Error("invalid-argument", "[addon] " + name + ": expected an integer between " + std::to_string(low) +
                                        " and " + std::to_string(high));
  }
  return static_cast<int64_t>(x);
}
inline Napi::Object to_object(const Napi::Value& v, const std::string& name) {
  if (!v.IsObject()) wrong_argument(name, "an object");
  return v.As<Napi::Object>();
}
template <typename T, typename F>
std::vector<T> to_vector(const Napi::Value& v, const std::string& name, F&& each) {
  if (!v.IsArray()) wrong_argument(name, "an array");
  const Napi::Array array = v.As<Napi::Array>();
  std::vector<T> out;
  for (uint32_t i = 0; i < array.Length(); ++i) out.push_back(static_cast<T>(each(array.Get(i), name)));
  return out;
}
inline std::vector<int64_t> to_ints(const Napi::Value& v, const std::string& name) {
  return to_vector<int64_t>(v, name, [](const Napi::Value& x, const std::string& n) { return to_int(x, n); });
}
inline std::vector<double> to_doubles(const Napi::Value& v, const std::string& name) {
  return to_vector<double>(v, name, [](const Napi::Value& x, const std::string& n) { return to_double(x, n); });
}
inline std::vector<int32_t> to_int32s(const Napi::Value& v, const std::string& name) {
  if (!v.IsTypedArray() || v.As<Napi::TypedArray>().TypedArrayType() != napi_int32_array) wrong_argument(name, "an Int32Array");
  const auto array = v.As<Napi::Int32Array>();
  return {array.Data(), array.Data() + array.ElementLength()};
}
// The bytes of a Uint8Array; valid during the call.
inline std::span<const uint8_t> to_bytes(const Napi::Value& v, const std::string& name) {
  if (!v.IsTypedArray() || v.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) {
    wrong_argument(name, "a Uint8Array");
  }
  const auto array = v.As<Napi::Uint8Array>();
  return {array.Data(), array.ByteLength()};
}

// ------------------------------------------------------------------------------------------- results

template <typename T>
Napi::Array to_js(Napi::Env env, const std::vector<T>& values) {
  Napi::Array array = Napi::Array::New(env, values.size());
  for (size_t i = 0; i < values.size(); ++i) array.Set(static_cast<uint32_t>(i), Napi::Value::From(env, values[i]));
  return array;
}

inline Napi::Array shape_to_js(Napi::Env env, const std::vector<int64_t>& shape) {
  return to_js(env, std::vector<double>(shape.begin(), shape.end()));
}

// Native memory that the collector knows of, from here until the last owner in this environment is gone: else a small
// heap would let snapshots of gigabytes lie about.
class Account {
 public:
  Account(Napi::Env env, size_t bytes) : env_(env), bytes_(static_cast<int64_t>(bytes)) { add(bytes_); }
  ~Account() { add(-bytes_); }
  Account(const Account&) = delete;
  Account& operator=(const Account&) = delete;
  // Views are counted by Node on its own: what it adds when one is made, and takes when one is collected, is undone.
  void viewed(size_t bytes) { add(-static_cast<int64_t>(bytes)); }
  void collected(size_t bytes) { add(static_cast<int64_t>(bytes)); }

 private:
  void add(int64_t bytes) {
    int64_t now = 0;
    napi_adjust_external_memory(env_, bytes, &now);
  }
  napi_env env_;
  int64_t bytes_;
};

// An ArrayBuffer over native memory without a copy; `owner` lives until the buffer is collected (contract 2). With
// `account`, which counts the memory already, making one never starts a collection.
template <typename Owner>
Napi::ArrayBuffer external_buffer(Napi::Env env, const void* data, size_t bytes, std::shared_ptr<Owner> owner,
                                  std::shared_ptr<Account> account = nullptr) {
  struct Keep {
    std::shared_ptr<Owner> owner;
    std::shared_ptr<Account> account;
    size_t bytes;
  };
  if (account) account->viewed(bytes);
  return Napi::ArrayBuffer::New(
      env, const_cast<void*>(data), bytes,
      [](Napi::Env, void*, Keep* held) {
        if (held->account) held->account->collected(held->bytes);
        delete held;
      },
      new Keep{std::move(owner), std::move(account), bytes});
}

// The bytes of a Uint8Array for work on another thread: kept from the collector while this lives, which must end on
// the JavaScript thread. The caller must not change them meanwhile.
class HeldBytes {
 public:
  HeldBytes(const Napi::Value& v, const std::string& name)
      : bytes_(to_bytes(v, name)),
        held_(std::make_shared<Napi::Reference<Napi::Value>>(Napi::Reference<Napi::Value>::New(v, 1))) {}
  std::span<const uint8_t> bytes() const { return bytes_; }

 private:
  std::span<const uint8_t> bytes_;
  std::shared_ptr<Napi::Reference<Napi::Value>> held_;
};

// Runs `work` on libuv's pool and resolves with what `done` makes of it: files, and passes over all parameters, which
// take up to a second where there are tens of millions. Training and evaluation have threads of their own.
template <typename Result>
class PromiseWorker final : public Napi::AsyncWorker {
 public:
  using Work = std::function<Result()>;
  using Done = std::function<Napi::Value(Napi::Env, Result)>;
  static Napi::Value run(Napi::Env env, Work work, Done done) {
    auto* worker = new PromiseWorker(env, std::move(work), std::move(done));  // deletes itself
    const Napi::Promise promise = worker->deferred_.Promise();
    worker->Queue();
    return promise;
  }

 private:
  PromiseWorker(Napi::Env env, Work work, Done done)
      : AsyncWorker(env), deferred_(env), work_(std::move(work)), done_(std::move(done)) {}

  void Execute() override {
    try {
      result_ = work_();
    } catch (...) {
      const Failure failure = failure_of(std::current_exception());
      code_ = failure.code;
      SetError(failure.message);
    }
  }
  void OnOK() override { deferred_.Resolve(done_(Env(), std::move(result_))); }
  void OnError(const Napi::Error& error) override { deferred_.Reject(js_error(Env(), code_, error.Message()).Value()); }

  Napi::Promise::Deferred deferred_;
  Work work_;
  Done done_;
  Result result_{};
  std::string code_;
};

// What work gives that is done for its effect, and what JavaScript gets for it.
struct Nothing {};
inline Napi::Value undefined(Napi::Env env, Nothing) { return env.Undefined(); }

}  // namespace lth
