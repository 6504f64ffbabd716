// Lifetime of training threads against the lifetime of Node (design: contract 1).
//
// A run's thread must have ended before its environment is torn down (natural end, worker.terminate) and before the
// process is (process.exit and uncaught errors run atexit handlers only). So every run is registered twice: with a
// cleanup hook of its environment, added after the run's ThreadSafeFunction so that it is called before that one's
// own hook, and in a list that an atexit handler walks.
#pragma once
#include "addon/handles.h"

namespace lth {

// Starts `launch` (Session::train or Session::evaluate with the events given) and returns { run, end }.
Napi::Value start_run(Napi::Env env, std::shared_ptr<Session> session, const Napi::Value& notify,
                      const std::function<std::shared_ptr<Run>(RunEvents)>& launch);

}  // namespace lth
