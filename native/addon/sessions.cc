#include "addon/environment.h"

namespace lth {
namespace {

SplitName split_name(const Napi::Value& v, const std::string& name) {
  const std::string text = to_string(v, name);
  if (text == "train") return SplitName::kTrain;
  if (text == "validation") return SplitName::kValidation;
  if (text == "test") return SplitName::kTest;
  throw Error("invalid-argument", "[addon] " + name + ": expected train, validation or test but received " + text);
}

const char* name_of(SplitName split) {
  switch (split) {
    case SplitName::kTrain: return "train";
    case SplitName::kValidation: return "validation";
    default: return "test";
  }
}

OptimiserOptions optimiser_from(const Napi::Object& o) {
  OptimiserOptions out;
  const std::string type = to_string(o.Get("type"), "optimiser.type");
  out.weight_decay = to_double(o.Get("weightDecay"), "optimiser.weightDecay");
  const std::string decayed = to_string(o.Get("decayed"), "optimiser.decayed");
  if (decayed == "all") {
    out.decayed = Decayed::kAll;
  } else if (decayed == "without-norms") {
    out.decayed = Decayed::kWithoutNorms;
  } else if (decayed == "weights") {
    out.decayed = Decayed::kWeights;
  } else {
    throw Error("invalid-argument", "[optimiser] decayed: expected all, without-norms or weights but received " + decayed);
  }
  if (type == "sgd") {
    out.type = OptimiserOptions::kSgd;
    out.momentum = to_double(o.Get("momentum"), "optimiser.momentum");
    out.nesterov = to_bool(o.Get("nesterov"), "optimiser.nesterov");
  } else if (type == "adam") {
    out.type = OptimiserOptions::kAdam;
    out.beta1 = to_double(o.Get("beta1"), "optimiser.beta1");
    out.beta2 = to_double(o.Get("beta2"), "optimiser.beta2");
    out.epsilon = to_double(o.Get("epsilon"), "optimiser.epsilon");
  } else if (type == "rmsprop") {
    out.type = OptimiserOptions::kRmsProp;
    out.mean_decay = to_double(o.Get("decay"), "optimiser.decay");
    out.momentum = to_double(o.Get("momentum"), "optimiser.momentum");
    out.epsilon = to_double(o.Get("epsilon"), "optimiser.epsilon");
  } else {
    throw Error("invalid-argument", "[optimiser] expected sgd, adam or rmsprop but received " + type);
  }
  return out;
}

Schedule schedule_from(const Napi::Object& o) {
  Schedule s;
  s.learning_rate = to_double(o.Get("learningRate"), "schedule.learningRate");
  s.milestones = to_ints(o.Get("milestones"), "schedule.milestones");
  s.gamma = to_double(o.Get("gamma"), "schedule.gamma");
  s.warmup = to_int(o.Get("warmup"), "schedule.warmup");
  if (!o.Get("linear").IsNull()) {
    const Napi::Object linear = to_object(o.Get("linear"), "schedule.linear");
    s.linear_to = to_double(linear.Get("to"), "schedule.linear.to");
    s.linear_steps = to_int(linear.Get("steps"), "schedule.linear.steps", 1);
  }
  if (!o.Get("exponential").IsNull()) {
    const Napi::Object exponential = to_object(o.Get("exponential"), "schedule.exponential");
    s.decay = to_double(exponential.Get("factor"), "schedule.exponential.factor");
    s.decay_every = to_int(exponential.Get("every"), "schedule.exponential.every", 1);
    s.decay_floor = to_double(exponential.Get("floor"), "schedule.exponential.floor");
  }
  if (!o.Get("constantAt").IsNull()) s.constant_at = to_int(o.Get("constantAt"), "schedule.constantAt");
  return s;
}

SessionOptions::Executor executor_from(const std::string& name) {
  if (name == "direct") return SessionOptions::kDirect;
  if (name == "aten") return SessionOptions::kAten;
  if (name == "autograd") return SessionOptions::kAutograd;
  throw Error("invalid-argument", "[session] executor: expected direct, aten or autograd but received " + name);
}

Products products_from(const std::string& name) {
  if (name == "auto") return Products::kAuto;
  if (name == "dense") return Products::kDense;
  if (name == "sparse") return Products::kSparse;
  throw Error("invalid-argument", "[session] kernels: expected auto, dense or sparse but received " + name);
}

Napi::Value session_open(const Napi::CallbackInfo& info) {
  const Napi::Object o = to_object(info[0], "options");
  SessionOptions s;
  s.network = from_handle<const CompiledNetwork>(o.Get("network"));
  s.data.train = from_handle<const Dataset>(o.Get("train"));
  if (!o.Get("test").IsNull()) s.data.test = from_handle<const Dataset>(o.Get("test"));
  s.data.validation = to_int(o.Get("validation"), "validation");
  s.data.subset = to_int(o.Get("subset"), "subset");
  s.data.seed = static_cast<uint64_t>(to_int(o.Get("seed"), "seed"));
  s.data.replicate = static_cast<uint32_t>(to_int(o.Get("replicate"), "replicate", 0, UINT32_MAX));
  s.data.batch = to_int(o.Get("batch"), "batch", 1, 1 << 24);
  s.micro_batch = to_int(o.Get("microBatch"), "microBatch", 0, 1 << 24);
  s.optimiser = optimiser_from(to_object(o.Get("optimiser"), "optimiser"));
  if (!o.Get("average").IsNull()) {
    const Napi::Object average = to_object(o.Get("average"), "average");
    s.average = {.decay = to_double(average.Get("decay"), "average.decay"),
                 .warmup = to_bool(average.Get("warmup"), "average.warmup")};
  }
  s.data.label_smoothing = to_double(o.Get("labelSmoothing"), "labelSmoothing");
  s.schedule = schedule_from(to_object(o.Get("schedule"), "schedule"));
  if (!o.Get("normalise").IsNull()) {
    const Napi::Object normalise = to_object(o.Get("normalise"), "normalise");
    s.mean = to_doubles(normalise.Get("mean"), "normalise.mean");
    s.std = to_doubles(normalise.Get("std"), "normalise.std");
  }
  if (!o.Get("augment").IsNull()) {
    const Napi::Object augment = to_object(o.Get("augment"), "augment");
    s.data.augment.pad = static_cast<int>(to_int(augment.Get("crop"), "augment.crop", 0, kMostPad));
    s.data.augment.flip = to_bool(augment.Get("flip"), "augment.flip");
  }
  s.device = to_string(o.Get("device"), "device");
  const std::string mode = to_string(o.Get("deviceMode"), "deviceMode");
  if (mode != "deterministic" && mode != "fast") {
    throw Error("invalid-argument", "[session] deviceMode: expected deterministic or fast but received " + mode);
  }
  s.device_mode = mode == "fast" ? DeviceMode::kFast : DeviceMode::kDeterministic;
  const std::string precision = to_string(o.Get("precision"), "precision");
  if (precision != "fp32" && precision != "bf16" && precision != "fp64") {
    throw Error("invalid-argument", "[session] precision: expected fp32, bf16 or fp64 but received " + precision);
  }
  s.bf16 = precision == "bf16";
  s.precision = precision == "fp64" ? Dtype::kFloat64 : Dtype::kFloat32;
  s.executor = executor_from(to_string(o.Get("executor"), "executor"));
  s.choice.products = products_from(to_string(o.Get("kernels"), "kernels"));
  s.choice.tuning = tuning_from(o.Get("tuning"), "tuning");
  s.threads = static_cast<int>(to_int(o.Get("threads"), "threads", 1, 1024));
  s.data.workers = static_cast<int>(to_int(o.Get("workers"), "workers", 1, 1024));
  return PromiseWorker<std::shared_ptr<Session>>::run(
      info.Env(), [s = std::move(s)] { return std::make_shared<Session>(s); },
      [](Napi::Env env, std::shared_ptr<Session> session) { return make_handle(env, std::move(session)); });
}

// `work` on a session that is busy meanwhile, free again when the promise settles.
template <typename Work, typename Done>
Napi::Value operate(const Napi::CallbackInfo& info, const char* operation, Work work, Done done) {
  using Result = std::invoke_result_t<Work, Session&>;
  auto session = from_handle<Session>(info[0]);
  auto claim = session->claim(operation);
  return PromiseWorker<Result>::run(
      info.Env(),
      [session, claim = std::move(claim), work = std::move(work)] {
        const Session::Release release{*claim};
        return work(*session);
      },
      std::move(done));
}

Napi::Value session_info(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto session = from_handle<Session>(info[0]);
  Napi::Object out = Napi::Object::New(env), examples = Napi::Object::New(env);
  out.Set("step", static_cast<double>(session->step()));
  examples.Set("train", static_cast<double>(session->examples(SplitName::kTrain)));
  examples.Set("validation", static_cast<double>(session->examples(SplitName::kValidation)));
  examples.Set("test", static_cast<double>(session->examples(SplitName::kTest)));
  out.Set("examples", examples);
  out.Set("updatesPerEpoch", static_cast<double>(session->updates_per_epoch()));
  out.Set("fingerprint", session->fingerprint());
  return out;
}

Napi::Value session_replaced(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Napi::Array out = Napi::Array::New(env);
  for (const Replaced& one : from_handle<Session>(info[0])->replaced()) {
    Napi::Object of = Napi::Object::New(env);
    of.Set("split", name_of(one.split));
    of.Set("row", one.row);
    of.Set("taken", one.taken);
    of.Set("why", one.why);
    out.Set(out.Length(), of);
  }
  return out;
}

Napi::Value session_initialise(const Napi::CallbackInfo& info) {
  return operate(
      info, "initialise",
      [draw = static_cast<uint64_t>(to_int(info[1], "draw"))](Session& session) {
        session.initialise(draw);
        return Nothing{};
      },
      undefined);
}

Napi::Value session_load(const Napi::CallbackInfo& info) {
  const std::string optimiser = to_string(to_object(info[2], "options").Get("optimiser"), "options.optimiser");
  if (optimiser != "restore" && optimiser != "zero") {
    throw Error("invalid-argument", "[load] optimiser: expected restore or zero but received " + optimiser);
  }
  return operate(
      info, "load",
      [snapshot = from_handle<const Snapshot>(info[1]), restore = optimiser == "restore"](Session& session) {
        session.load(*snapshot, restore);
        return Nothing{};
      },
      undefined);
}

Napi::Value session_set_masks(const Napi::CallbackInfo& info) {
  return operate(
      info, "set_masks",
      [masks = info[1].IsNull() ? nullptr : from_handle<const Masks>(info[1])](Session& session) {
        session.set_masks(masks);
        return Nothing{};
      },
      undefined);
}

Napi::Value session_set_step(const Napi::CallbackInfo& info) {
  const auto session = from_handle<Session>(info[0]);
  const auto claim = session->claim("set_step");
  session->set_step(to_int(info[1], "step"));
  return info.Env().Undefined();
}

Napi::Value session_snapshot(const Napi::CallbackInfo& info) {
  return operate(
      info, "snapshot", [](Session& session) { return session.snapshot(); },
      [](Napi::Env env, std::shared_ptr<const Snapshot> snapshot) { return make_handle(env, std::move(snapshot)); });
}

Napi::Value rows_of(Napi::Env env, const std::vector<int32_t>& rows) {
  auto out = Napi::Int32Array::New(env, rows.size());
  std::copy(rows.begin(), rows.end(), out.Data());
  return out;
}

Napi::Value session_batch(const Napi::CallbackInfo& info) {
  const auto session = from_handle<Session>(info[0]);
  const auto claim = session->claim("batch");
  return rows_of(info.Env(), session->batch(to_int(info[1], "step"), static_cast<uint64_t>(to_int(info[2], "noise"))));
}

Napi::Value session_gradients(const Napi::CallbackInfo& info) {
  return operate(
      info, "gradients",
      [step = to_int(info[1], "step"), noise = static_cast<uint64_t>(to_int(info[2], "noise"))](Session& session) {
        return session.gradients(step, noise);
      },
      [](Napi::Env env, Gradients g) -> Napi::Value {
        Napi::Object out = Napi::Object::New(env);
        out.Set("loss", g.loss);
        out.Set("correct", static_cast<double>(g.correct));
        out.Set("gradients", make_handle(env, std::move(g.gradients)));
        return out;
      });
}

Napi::Value session_scores(const Napi::CallbackInfo& info) {
  auto session = from_handle<Session>(info[0]);
  const ScoreMethod method = score_method(to_string(info[1], "method"));
  const int64_t per_class = to_int(info[2], "perClass", 1, INT32_MAX);
  const auto scores = std::make_shared<std::shared_ptr<const Snapshot>>();
  return start_run(
      info.Env(), session, info.Env().Undefined(),
      [&](RunEvents events) {
        const auto found = [scores](std::shared_ptr<const Snapshot> one) { *scores = std::move(one); };
        return session->scores(method, per_class, found, std::move(events));
      },
      [scores](Napi::Env env) { return *scores ? make_handle(env, std::move(*scores)) : env.Null(); });
}

Napi::Value session_kernels(const Napi::CallbackInfo& info) {
  const auto session = from_handle<Session>(info[0]);
  const auto claim = session->claim("kernels");
  const auto name = [](bool sparse) { return sparse ? "sparse" : "dense"; };
  Napi::Array out = Napi::Array::New(info.Env());
  for (const KernelChoice& choice : session->kernels()) {
    Napi::Object one = Napi::Object::New(info.Env());
    one.Set("layer", choice.layer);
    one.Set("forward", name(choice.sparse_forward));
    one.Set("inputGradient", info.Env().Null());
    if (choice.has_input_gradient) one.Set("inputGradient", name(choice.sparse_input_gradient));
    one.Set("weightGradient", name(choice.sparse_weight_gradient));
    out.Set(out.Length(), one);
  }
  return out;
}

Napi::Value session_memory(const Napi::CallbackInfo& info) {
  const auto session = from_handle<Session>(info[0]);
  const auto claim = session->claim("memory");
  const Session::Memory memory = session->memory();
  Napi::Object out = Napi::Object::New(info.Env());
  out.Set("weights", static_cast<double>(memory.weights));
  out.Set("gradients", static_cast<double>(memory.gradients));
  out.Set("optimiser", static_cast<double>(memory.optimiser));
  out.Set("average", static_cast<double>(memory.average));
  return out;
}

Napi::Value session_score_examples(const Napi::CallbackInfo& info) {
  const auto session = from_handle<Session>(info[0]);
  const auto claim = session->claim("score_examples");
  return rows_of(info.Env(), session->score_rows(to_int(info[1], "perClass", 1, INT32_MAX)));
}

Napi::Value session_train(const Napi::CallbackInfo& info) {
  auto session = from_handle<Session>(info[0]);
  const Napi::Object o = to_object(info[1], "options");
  TrainOptions t;
  t.until = to_int(o.Get("until"), "until", 0, INT32_MAX);
  t.noise = static_cast<uint64_t>(to_int(o.Get("noise"), "noise"));
  t.metrics_every = to_int(o.Get("metricsEvery"), "metricsEvery");
  t.evaluate_every = to_int(o.Get("evaluateEvery"), "evaluateEvery");
  t.evaluate_at_start = to_bool(o.Get("evaluateAtStart"), "evaluateAtStart");
  t.ends = to_bool(o.Get("ends"), "ends");
  t.continues = to_bool(o.Get("continues"), "continues");
  t.pause_at = to_int(o.Get("pauseAt"), "pauseAt", 0, INT32_MAX);
  t.evaluate = to_vector<SplitName>(o.Get("evaluate"), "evaluate", split_name);
  return start_run(info.Env(), session, info[2],
                   [&](RunEvents events) { return session->train(t, std::move(events)); });
}

Napi::Value session_evaluate(const Napi::CallbackInfo& info) {
  auto session = from_handle<Session>(info[0]);
  const SplitName split = split_name(info[1], "split");
  const int64_t examples = to_int(info[2], "examples");
  return start_run(info.Env(), session, info.Env().Undefined(),
                   [&](RunEvents events) { return session->evaluate(split, examples, std::move(events)); });
}

Napi::Value session_reestimate(const Napi::CallbackInfo& info) {
  auto session = from_handle<Session>(info[0]);
  const int64_t batches = to_int(info[1], "batches", 1, INT32_MAX);
  return start_run(info.Env(), session, info.Env().Undefined(),
                   [&](RunEvents events) { return session->reestimate(batches, std::move(events)); });
}

template <typename Array, typename T>
Napi::Value column(Napi::Env env, const std::vector<T>& values, const std::shared_ptr<MetricRows>& owner) {
  return Array::New(env, values.size(), external_buffer(env, values.data(), values.size() * sizeof(T), owner), 0);
}

Napi::Value run_drain(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::shared_ptr<MetricRows> rows = from_handle<RunHandle>(info[0])->run->queue().drain();
  if (!rows) return env.Null();
  Napi::Object out = Napi::Object::New(env);
  out.Set("rows", static_cast<double>(rows->step.size()));
  out.Set("step", column<Napi::Int32Array>(env, rows->step, rows));
  out.Set("split", column<Napi::Int8Array>(env, rows->split, rows));
  out.Set("loss", column<Napi::Float64Array>(env, rows->loss, rows));
  out.Set("accuracy", column<Napi::Float64Array>(env, rows->accuracy, rows));
  out.Set("learningRate", column<Napi::Float64Array>(env, rows->learning_rate, rows));
  out.Set("examples", column<Napi::Float64Array>(env, rows->examples, rows));
  out.Set("seconds", column<Napi::Float64Array>(env, rows->seconds, rows));
  return out;
}

Napi::Value stop_runs(const Napi::CallbackInfo& info) {
  stop_runs_of(info.Env());
  return info.Env().Undefined();
}

Napi::Value run_abort(const Napi::CallbackInfo& info) {
  from_handle<RunHandle>(info[0])->run->abort();
  return info.Env().Undefined();
}

Napi::Value run_pause(const Napi::CallbackInfo& info) {
  from_handle<RunHandle>(info[0])->run->pause();
  return info.Env().Undefined();
}

}  // namespace

void define_sessions(Napi::Object& exports) {
  define<session_open>(exports, "sessionOpen");
  define<session_info>(exports, "sessionInfo");
  define<session_initialise>(exports, "sessionInitialise");
  define<session_load>(exports, "sessionLoad");
  define<session_set_masks>(exports, "sessionSetMasks");
  define<session_replaced>(exports, "sessionReplaced");
  define<session_set_step>(exports, "sessionSetStep");
  define<session_snapshot>(exports, "sessionSnapshot");
  define<session_batch>(exports, "sessionBatch");
  define<session_gradients>(exports, "sessionGradients");
  define<session_scores>(exports, "sessionScores");
  define<session_score_examples>(exports, "sessionScoreExamples");
  define<session_kernels>(exports, "sessionKernels");
  define<session_memory>(exports, "sessionMemory");
  define<session_train>(exports, "sessionTrain");
  define<session_evaluate>(exports, "sessionEvaluate");
  define<session_reestimate>(exports, "sessionReestimate");
  define<run_drain>(exports, "runDrain");
  define<run_abort>(exports, "runAbort");
  define<run_pause>(exports, "runPause");
  define<stop_runs>(exports, "stopRuns");
}

}  // namespace lth
