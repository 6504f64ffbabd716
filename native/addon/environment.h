// Lifetime of training threads against the lifetime of Node (design: contract 1).
//
// A run's thread must have ended before its environment is torn down (natural end, worker.terminate) and before the
// process is (process.exit and uncaught errors run atexit handlers only). So every run is registered twice: with a
// cleanup hook of its environment, added after the run's ThreadSafeFunction so that it is called before that one's
// own hook, and in a list that an atexit handler walks. That handler may come too late for LibTorch's own statics,
// which are made at the first backward pass and so are destroyed before it runs: therefore the loader also calls
// stop_runs_of on the process's `exit` event, which comes before all of this.
#pragma once
#include "addon/handles.h"

namespace lth {

// Stops and joins what is going on in this environment.
void stop_runs_of(napi_env env);

// Starts `launch` (Session::train, say, with the events given) and returns { run, end }; `session` is null where no session
// does the work. `result` makes what the promise resolves with, which is the run's end otherwise.
Napi::Value start_run(Napi::Env env, std::shared_ptr<Session> session, const Napi::Value& notify,
                      const std::function<std::shared_ptr<Run>(RunEvents)>& launch,
                      std::function<Napi::Value(Napi::Env)> result = nullptr);

}  // namespace lth
