// Handles: externals with a type tag, so that a wrong one is an error and never a crash.
#pragma once
#include "addon/node.h"
#include "core/lock.h"
#include "core/snapshot.h"
#include "data/dataset.h"
#include "data/picture_stream.h"
#include "network/network.h"
#include "train/session.h"

namespace lth {

// A run as JavaScript holds it: it keeps its session, if it is of one, alive while its thread is going on.
struct RunHandle {
  std::shared_ptr<Session> session;  // null: of none
  std::shared_ptr<Run> run;
};

template <typename T>
struct HandleTraits;
#define LTH_HANDLE(TYPE, NAME, LOW)                                                             \
  template <>                                                                                   \
  struct HandleTraits<TYPE> {                                                                   \
    static constexpr const char* name = NAME;                                                   \
    static constexpr napi_type_tag tag = {0x6c74682d74726169ull, 0x6e000000000000ull + (LOW)};  \
  };
LTH_HANDLE(const CompiledNetwork, "network", 1)
LTH_HANDLE(const Dataset, "dataset", 2)
LTH_HANDLE(const Snapshot, "snapshot", 3)
LTH_HANDLE(const Masks, "masks", 4)
LTH_HANDLE(Session, "session", 5)
LTH_HANDLE(RunHandle, "run", 6)
LTH_HANDLE(FileLock, "lock", 7)
LTH_HANDLE(const PictureSet, "pictures", 8)
LTH_HANDLE(PictureStream, "picture stream", 9)
#undef LTH_HANDLE

// Native memory of what a handle holds, where it may be large and is not freed by other means.
inline size_t memory_of(const Snapshot& snapshot) { return snapshot.bytes(); }
inline size_t memory_of(const Masks& masks) { return masks.words.size() * sizeof(uint64_t); }
inline size_t memory_of(const Dataset& data) { return data.images.size() + data.labels.size() * sizeof(int32_t); }
inline size_t memory_of(const PictureSet& set) { return set.memory(); }
template <typename T>
size_t memory_of(const T&) {
  return 0;
}

template <typename T>
struct Box {
  std::shared_ptr<T> value;  // null once disposed
  std::shared_ptr<Account> account;

  void dispose() {
    value.reset();
    account.reset();
  }
};

template <typename T>
Napi::Value make_handle(Napi::Env env, std::shared_ptr<T> value) {
  auto account = std::make_shared<Account>(env, memory_of(*value));
  auto external = Napi::External<Box<T>>::New(env, new Box<T>{std::move(value), std::move(account)},
                                              [](Napi::Env, Box<T>* box) { delete box; });
  external.TypeTag(&HandleTraits<T>::tag);
  return external;
}

template <typename T>
Box<T>* box_of(const Napi::Value& v) {
  if (!v.IsExternal()) return nullptr;
  const auto external = v.As<Napi::External<Box<T>>>();
  return external.CheckTypeTag(&HandleTraits<T>::tag) ? external.Data() : nullptr;
}

template <typename T>
std::shared_ptr<T> from_handle(const Napi::Value& v) {
  Box<T>* box = box_of<T>(v);
  if (!box) throw Error("wrong-handle", std::string("[addon] expected a ") + HandleTraits<T>::name + " handle");
  if (!box->value) throw Error("disposed", std::string("[addon] this ") + HandleTraits<T>::name + " was disposed");
  return box->value;
}

template <typename T>
std::shared_ptr<Account> account_of(const Napi::Value& v) {
  return box_of<T>(v)->account;
}

void define_networks(Napi::Object& exports);
void define_data(Napi::Object& exports);
void define_pictures(Napi::Object& exports);
void define_sessions(Napi::Object& exports);
void define_snapshots(Napi::Object& exports);
void define_masks(Napi::Object& exports);
void define_analyse(Napi::Object& exports);
void define_bench(Napi::Object& exports);
void define_tuning(Napi::Object& exports);

Tuning tuning_from(const Napi::Value& v, const std::string& name);

}  // namespace lth
