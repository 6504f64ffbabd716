#include "addon/environment.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <limits>
#include <mutex>

namespace lth {
namespace {

// All runs of the process whose thread may be going on. Never destroyed: the atexit handler and late threads use it.
struct Registry {
  struct Entry {
    napi_env env;
    std::weak_ptr<Run> run;
  };
  std::mutex mutex;
  std::vector<Entry> runs;
  std::atomic<bool> exiting{false};
};

template <typename F>
void stop_runs(F&& which);

Registry& registry() {
  static Registry* all = [] {
    auto* created = new Registry;
    std::atexit([] {
      Registry& r = registry();
      r.exiting.store(true);  // from here on no thread talks to JavaScript any more
      stop_runs([](const Registry::Entry&) { return true; });
    });
    return created;
  }();
  return *all;
}

template <typename F>
void stop_runs(F&& which) {
  Registry& r = registry();
  std::vector<std::shared_ptr<Run>> runs;
  {
    std::lock_guard lock(r.mutex);
    for (const Registry::Entry& entry : r.runs) {
      if (auto run = entry.run.lock(); run && which(entry)) runs.push_back(std::move(run));
    }
  }
  for (const auto& run : runs) run->stop_and_join();
}

void register_run(napi_env env, const std::shared_ptr<Run>& run) {
  Registry& r = registry();
  std::lock_guard lock(r.mutex);
  std::erase_if(r.runs, [](const Registry::Entry& entry) { return entry.run.expired(); });
  r.runs.push_back({env, run});
}

// What a run shares between its thread and JavaScript.
struct Bridge {
  explicit Bridge(Napi::Env env) : deferred(Napi::Promise::Deferred::New(env)) {}

  std::shared_ptr<Session> session;
  std::shared_ptr<Run> run;
  Napi::Promise::Deferred deferred;
  std::function<void(Napi::Object&)> add;
  Napi::ThreadSafeFunction notify;
  std::atomic<bool> notified{false};  // at most one notification is on its way
  napi_env env = nullptr;
};

void cleanup_hook(void* data) {
  auto* bridge = static_cast<Bridge*>(data);
  if (bridge->run) bridge->run->stop_and_join();
}

const char* name_of(RunEnd::State state) {
  switch (state) {
    case RunEnd::kDone: return "done";
    case RunEnd::kPaused: return "paused";
    case RunEnd::kAborted: return "aborted";
    default: return "diverged";
  }
}

void settle(Napi::Env env, Bridge& bridge, const RunEnd& end) {
  if (!end.error_code.empty()) {
    bridge.deferred.Reject(js_error(env, end.error_code, end.error_message).Value());
    return;
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("state", name_of(end.state));
  result.Set("step", static_cast<double>(end.step));
  result.Set("seconds", end.seconds);
  result.Set("loss", end.examples ? end.loss : std::numeric_limits<double>::quiet_NaN());
  result.Set("accuracy", end.examples ? end.accuracy : std::numeric_limits<double>::quiet_NaN());
  result.Set("examples", static_cast<double>(end.examples));
  bridge.add(result);
  bridge.deferred.Resolve(result);
}

}  // namespace

void stop_runs_of(napi_env env) {
  stop_runs([&](const Registry::Entry& entry) { return entry.env == env; });
}

Napi::Value start_run(Napi::Env env, std::shared_ptr<Session> session, const Napi::Value& notify,
                      const std::function<std::shared_ptr<Run>(RunEvents)>& launch,
                      std::function<void(Napi::Object&)> add) {
  const Napi::Function callback = notify.IsFunction()
                                      ? notify.As<Napi::Function>()
                                      : Napi::Function::New(env, [](const Napi::CallbackInfo&) {});
  auto bridge = std::make_shared<Bridge>(env);
  bridge->env = env;
  bridge->session = session;
  bridge->add = std::move(add);
  // Unlimited as far as Node knows, bounded by us: one notification and the end.
  auto* held = new std::shared_ptr<Bridge>(bridge);
  bridge->notify = Napi::ThreadSafeFunction::New(
      env, callback, "lth-train run", 0, 1, [](Napi::Env, std::shared_ptr<Bridge>* last) { delete last; }, held);
  napi_add_env_cleanup_hook(env, cleanup_hook, bridge.get());

  // Raw pointer: the bridge lives until the ThreadSafeFunction is finalised, which waits for Release below.
  Bridge* b = bridge.get();
  RunEvents events;
  events.rows = [b] {
    if (registry().exiting.load() || b->notified.exchange(true)) return;
    b->notify.NonBlockingCall([b](Napi::Env, Napi::Function js) {
      b->notified.store(false);
      js.Call({});
    });
  };
  events.end = [b](const RunEnd& end) {
    if (registry().exiting.load()) return;
    auto* copy = new RunEnd(end);
    const napi_status status = b->notify.NonBlockingCall(copy, [b](Napi::Env js_env, Napi::Function, RunEnd* result) {
      const std::unique_ptr<RunEnd> owned(result);
      napi_remove_env_cleanup_hook(b->env, cleanup_hook, b);
      b->run->stop_and_join();  // its thread is past its work; the session may have begun another run
      settle(js_env, *b, *result);
    });
    if (status != napi_ok) delete copy;  // the environment is closing: nobody waits for the result
    b->notify.Release();
  };

  try {
    bridge->run = launch(std::move(events));
  } catch (...) {
    napi_remove_env_cleanup_hook(env, cleanup_hook, b);
    bridge->notify.Release();
    throw;
  }
  register_run(env, bridge->run);
  Napi::Object result = Napi::Object::New(env);
  result.Set("run", make_handle(env, std::make_shared<RunHandle>(RunHandle{session, bridge->run})));
  result.Set("end", bridge->deferred.Promise());
  return result;
}

}  // namespace lth
