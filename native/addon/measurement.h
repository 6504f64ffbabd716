// Work that no session does: measurements.
#pragma once
#include <functional>
#include <memory>
#include <optional>

#include "addon/environment.h"

namespace lth {

// Work on a thread of its own that gives a Result, or nothing where it was stopped: { run, end }, of which `end` resolves
// with to_js of that, or null. `work` is given what says whether it should stop.
template <typename Result>
Napi::Value start_measurement(Napi::Env env, std::function<std::optional<Result>(const std::function<bool()>&)> work,
                              Napi::Value (*to_js)(Napi::Env, const Result&)) {
  auto result = std::make_shared<std::optional<Result>>();
  return start_run(
      env, nullptr, env.Undefined(),
      [&](RunEvents events) {
        return std::make_shared<Run>(
            [work = std::move(work), result](Run& run) {
              *result = work([&run] { return run.stopping(); });
              RunEnd end;
              end.state = *result ? RunEnd::kDone : RunEnd::kAborted;
              return end;
            },
            std::move(events));
      },
      [result, to_js](Napi::Env js_env) { return *result ? to_js(js_env, **result) : js_env.Null(); });
}

}  // namespace lth
