#include "train/session.h"

#include <ATen/Context.h>
#include <c10/core/Device.h>
#include <c10/core/StreamGuard.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "cuda/cuda.h"
#include "cuda/device_kernels.h"
#include "exec/libtorch.h"
#include "jpeg/pictures.h"

namespace lth {
namespace {

// LibTorch's setting is per calling thread. Its calls run on one thread each: parallelism is ours, over tasks whose
// bits do not depend on how many there are.
void use_one_thread() { at::set_num_threads(1); }

// The calling thread does a session's work.
struct Here {
  explicit Here(const std::optional<c10::Stream>& stream) : guard(stream) { use_one_thread(); }
  c10::OptionalStreamGuard guard;
};

// What LibTorch keeps for the whole process. Whether NNPACK runs depends on the CPU and on the size of a batch: bits must
// not. And fp32 is fp32, not TF32.
void set_flags_once() {
  static const bool done = [] {
    at::Context& context = at::globalContext();
    context.setUserEnabledNNPACK(false);
    context.setAllowTF32CuDNN(false);
    context.setAllowTF32CuBLAS(false);
    return true;
  }();
  (void)done;
}

SessionOptions checked(SessionOptions options) {
  check(options);
  const at::Device device = device_from(options.device);
  if (!device.is_cpu()) options.data.memory = &pinned_memory(device);
  return options;
}

ParameterStore::Kind store_kind(const SessionOptions& o, bool aten) {
  if (aten) return ParameterStore::kAten;
  return o.executor == SessionOptions::kAutograd ? ParameterStore::kWhole : ParameterStore::kPacked;
}

// `largest`: examples that go through the network at once, at most.
std::unique_ptr<Executor> executor_of(const SessionOptions& o, bool aten, int64_t largest, Isa isa,
                                      ParameterStore& store, Pool& pool) {
  if (o.executor == SessionOptions::kAutograd) return autograd(store, o.normaliser());
  if (aten) {
    const bool our_kernels = o.executor == SessionOptions::kDirect;
    return direct_aten(store, {.bf16 = o.bf16, .our_kernels = our_kernels, .largest = largest}, o.normaliser());
  }
  if (o.network->convolutional()) return direct_conv(store, pool, isa, o.bf16, o.choice, o.normaliser(), largest);
  return direct_cpu(store, pool, isa, o.choice, o.normaliser(), largest);
}

}  // namespace

Session::Session(SessionOptions options)
    : options_(checked(std::move(options))), isa_(chosen_isa()), batches_(options_.data) {
  const at::Device device = device_from(options_.device);
  const bool aten = !device.is_cpu() || options_.executor == SessionOptions::kAten;
  set_flags_once();
  // Not the device's default one: sessions do not wait for each other, and updates can be recorded.
  if (!device.is_cpu()) {
    lease_ = std::make_unique<StreamLease>(device);
    stream_ = lease_->stream();
  }
  const Here here(stream_);
  DeviceKernels::of(device);  // now, not in the middle of a training
  pool_ = std::make_unique<Pool>(aten || options_.executor == SessionOptions::kAutograd ? 1 : options_.threads,
                                 use_one_thread);
  store_ = std::make_unique<ParameterStore>(options_.network, options_.precision, device, store_kind(options_, aten),
                                            options_.optimiser.state_names());
  store_->set_decayed(options_.optimiser.decayed);
  if (options_.average.any()) store_->keep_average();
  int64_t largest = std::min(options_.data.batch, examples(SplitName::kTrain));
  if (options_.micro_batch > 0) largest = std::min(largest, options_.micro_batch);
  executor_ = executor_of(options_, aten, largest, isa_, *store_, *pool_);
  store_->initialise(options_.data.seed, options_.data.replicate, 0);
  // Last, for a session that does not come about decides nothing.
  if (!device.is_cpu()) set_device_mode(options_.device_mode);
}

Session::~Session() { stop(); }

void Session::stop() {
  if (run_) run_->stop_and_join();
}

void Session::abort() {
  if (run_) run_->abort();
}

std::shared_ptr<Session::Claim> Session::claim(const char* operation) {
  if (busy_.exchange(true)) throw Error("busy", std::string("[") + operation + "] the session is busy with another call");
  return std::make_shared<Claim>(busy_);
}

std::string Session::fingerprint() const {
  const bool fp64 = options_.precision == Dtype::kFloat64, cpu = store_->device.is_cpu();
  std::string text = "kernels=" + std::to_string(kKernelsVersion) + " libtorch=" + libtorch_version() + " device=" + (cpu ? "cpu" : device_words(store_->device)) +
                     (options_.device_mode == DeviceMode::kFast ? " mode=fast" : "") +
                     " executor=" + name_of(options_.executor) +
                     " precision=" + (options_.bf16 ? "bf16" : fp64 ? "fp64" : "fp32");
  // There is one table in fp64, and none of its own for AVX512_BF16 in fp32.
  if (cpu) text += std::string(" isa=") + name_of(fp64 ? Isa::kPortable : options_.bf16 ? isa_ : kernels_f32(isa_).isa);
  // LibTorch's own decides what scores of pruning at initialisation are, which go through its autograd.
  if (cpu && options_.network->convolutional()) {
    text += " convolutions=" + std::to_string(kConvolutionsVersion) + " libtorch-isa=" + libtorch_isa();
  }
  if (options_.data.train->pictures) {
    text += " pictures=";  // what decoders make of them
    for (char c : jpeg_info().libraries) text += c == ' ' ? '-' : c;
  }
  if (options_.choice.products != Products::kAuto) {
    text += options_.choice.products == Products::kDense ? " products=dense" : " products=sparse";
  } else if (cpu && !fp64 && options_.executor == SessionOptions::kDirect && !(options_.choice.tuning == Tuning{})) {
    text += " tuning=" + name_of(options_.choice.tuning);
  }
  return text;
}

Session::Memory Session::memory() const {
  Memory m;
  m.weights = static_cast<int64_t>(store_->weights.nbytes());
  m.gradients = static_cast<int64_t>(store_->gradients.nbytes());
  for (const ParameterStore::State& state : store_->optimiser) m.optimiser += static_cast<int64_t>(state.values.nbytes());
  m.average = store_->average_bytes();
  return m;
}

void Session::initialise(uint64_t draw) {
  const Here here(stream_);
  store_->initialise(options_.data.seed, options_.data.replicate, draw);
  stepped();
}

void Session::load(const Snapshot& snapshot, bool restore_optimiser) {
  const Here here(stream_);
  store_->load(snapshot, restore_optimiser);
  stepped();
}

void Session::set_masks(std::shared_ptr<const Masks> masks) {
  const Here here(stream_);
  store_->set_masks(std::move(masks));
}

void Session::set_step(int64_t step) {
  store_->step = step;
  stepped();
}

std::shared_ptr<const Snapshot> Session::snapshot() {
  const Here here(stream_);
  return store_->snapshot();
}

BatchResult Session::train_batch(const Batch& batch, const Statistics& statistics, Executor::Wanted wanted) {
  const auto size = static_cast<int64_t>(batch.examples.size());
  if (options_.micro_batch == 0 || size <= options_.micro_batch) return executor_->train(batch, statistics, wanted);
  const std::vector<Batch> parts = micro_batches(batch, options_.micro_batch);
  BatchResult result;
  for (const Batch& part : parts) {
    const BatchResult one = executor_->train(part, statistics, wanted);
    result.loss += one.loss;
    result.correct += one.correct;
    at::Tensor& gradients = store_->gradients;
    const double share = static_cast<double>(part.examples.size()) / static_cast<double>(size);
    if (&part == &parts.front()) {
      if (!summed_.defined() || summed_.numel() != gradients.numel()) summed_ = at::empty_like(gradients);
      summed_.copy_(gradients).mul_(share);
    } else {
      summed_.add_(gradients, share);
    }
  }
  store_->gradients.copy_(summed_);
  return result;
}

Gradients Session::gradients(int64_t step, uint64_t noise) {
  const Here here(stream_);
  batches_.read_until(step + 1);
  const Batch examples = batches_.training(step, noise);
  const BatchResult result = train_batch(examples, {Statistics::kLeave}, Executor::Wanted::kAll);
  return {result.loss / static_cast<double>(examples.examples.size()), result.correct, store_->gradient_snapshot()};
}

Session::Evaluation Session::evaluate_rows(SplitName split, std::span<const int32_t> rows, const Run& run) {
  const ParameterStore::Averaged averages(*store_);
  Batches::Sequence examples = batches_.in_order(split, rows, executor_->evaluation_batch());
  Evaluation e;
  int64_t correct = 0;
  while (!examples.done()) {
    if (run.stopping()) {
      e.complete = false;
      return e;
    }
    const BatchResult r = executor_->evaluate(examples.next());
    e.loss += r.loss;
    correct += r.correct;
  }
  const auto count = static_cast<double>(rows.size());
  e.loss /= count;
  e.accuracy = static_cast<double>(correct) / count;
  return e;
}

RunEnd Session::train_loop(Run& run, const TrainOptions& o) {
  const Here here(stream_);
  const double start = now_seconds();
  bool evaluated = true;
  Snapshot::Pending& row = store_->pending;
  if (!o.continues) row = {};
  // All rows of an evaluation or none: one that is stopped is made again by the call that continues.
  const auto evaluate_all = [&] {
    row.evaluation = true;
    std::vector<MetricRow> rows;
    for (SplitName split : o.evaluate) {
      const Evaluation e = evaluate_rows(split, batches_.rows(split), run);
      if (!e.complete) return false;
      rows.push_back({store_->step, split, e.loss, e.accuracy, options_.schedule.rate(store_->step), examples(split),
                      now_seconds() - start});
    }
    for (const MetricRow& one : rows) run.push(one);
    row.evaluation = false;
    return true;
  };
  const auto end = [&](RunEnd::State state) {
    RunEnd e;
    e.state = state;
    e.step = store_->step;
    e.seconds = now_seconds() - start;
    return e;
  };
  if (o.evaluate_at_start || row.evaluation) evaluated = evaluate_all();
  const int64_t first = store_->step;
  batches_.read_until(o.until);
  while (evaluated && store_->step < o.until) {
    if (run.stopping()) return end(RunEnd::kAborted);
    const int64_t step = store_->step;
    // Without a look at whether the weights are finite: where a training is cut must not decide how it ends.
    if (step > first && (run.pausing() || step == o.pause_at)) {
      run.announce(true);
      return end(RunEnd::kPaused);
    }
    const Batch examples = batches_.training(step, o.noise);
    const auto seen = static_cast<int64_t>(examples.examples.size());
    const BatchResult r = train_batch(examples, {}, Executor::Wanted::kForUpdate);
    const double rate = options_.schedule.rate(step);
    row.loss += r.loss;
    row.correct += r.correct;
    row.seen += seen;
    const bool finite = std::isfinite(r.loss);
    if (finite) {
      optimiser_step(options_.optimiser, rate, *store_, *pool_, isa_);
      ++store_->step;
      if (options_.average.any()) average_step(options_.average, *store_, *pool_);
      stepped();
    }
    const bool last = (store_->step == o.until && o.ends) || !finite;
    if (last || (o.metrics_every > 0 && store_->step % o.metrics_every == 0)) {
      const auto examples_seen = static_cast<double>(row.seen);
      run.push({store_->step, SplitName::kTrain, row.loss / examples_seen, static_cast<double>(row.correct) / examples_seen, rate, row.seen,
                now_seconds() - start});
      row = {};
    }
    if (!finite) {
      run.announce(true);
      return end(RunEnd::kDiverged);
    }
    if (last || (o.evaluate_every > 0 && store_->step % o.evaluate_every == 0)) {
      evaluated = evaluate_all();
    }
    last ? run.announce(true) : run.flush();
  }
  if (!evaluated) return end(RunEnd::kAborted);
  return end(store_->finite() ? RunEnd::kDone : RunEnd::kDiverged);
}

std::shared_ptr<Run> Session::start(const char* operation, Run::Work work, RunEvents events) {
  auto held = claim(operation);
  stop();  // joins the run before, which has ended
  run_ = std::make_shared<Run>(
      [held = std::move(held), work = std::move(work)](Run& run) {
        const Release release{*held};
        return work(run);
      },
      std::move(events));
  return run_;
}

std::shared_ptr<Run> Session::train(const TrainOptions& o, RunEvents events) {
  if (!busy_.load() && o.until < step()) {
    throw Error("invalid-argument", "[train] until " + std::to_string(o.until) + " lies before the session's step " +
                                        std::to_string(step()));
  }
  for (SplitName split : o.evaluate) {
    if (examples(split) == 0) throw Error("invalid-argument", "[train] evaluate: that split has no examples");
  }
  return start("train", [this, o](Run& run) { return train_loop(run, o); }, std::move(events));
}

std::shared_ptr<Run> Session::evaluate(SplitName split, int64_t count, RunEvents events) {
  const std::vector<int32_t>& all = batches_.rows(split);
  const auto size = static_cast<int64_t>(all.size());
  if (size == 0) throw Error("invalid-argument", "[evaluate] that split has no examples");
  if (count > size) {
    throw Error("invalid-argument", "[evaluate] " + std::to_string(count) + " examples of a split that has " +
                                        std::to_string(size));
  }
  // Evenly spaced: data sets may be sorted by class.
  std::vector<int32_t> rows = all;
  for (int64_t i = 0; i < count; ++i) rows[i] = all[i * size / count];
  if (count > 0) rows.resize(count);
  return start(
      "evaluate",
      [this, split, rows = std::move(rows)](Run& run) {
        const Here here(stream_);
        const double start = now_seconds();
        const Evaluation e = evaluate_rows(split, rows, run);
        RunEnd end;
        end.state = e.complete ? RunEnd::kDone : RunEnd::kAborted;
        end.step = store_->step;
        if (e.complete) {
          end.loss = e.loss;
          end.accuracy = e.accuracy;
          end.examples = static_cast<int64_t>(rows.size());
        }
        end.seconds = now_seconds() - start;
        return end;
      },
      std::move(events));
}

std::shared_ptr<Run> Session::scores(ScoreMethod method, int64_t per_class, Found found, RunEvents events) {
  return start(
      "scores",
      [this, method, per_class, found = std::move(found)](Run& run) {
        const Here here(stream_);
        const double start = now_seconds();
        const int64_t batch = options_.data.batch, most = options_.micro_batch > 0 ? options_.micro_batch : batch;
        const std::vector<int32_t> rows = needs_examples(method) ? score_rows(per_class) : std::vector<int32_t>{};
        Batches::Sequence examples = batches_.in_order(SplitName::kTrain, rows, std::min(batch, most));
        const auto next = [&] { return run.stopping() || examples.done() ? std::nullopt : std::optional(examples.next()); };
        const at::Tensor values = lth::scores(method, *store_, options_.normaliser(), next);
        RunEnd end;
        if (run.stopping()) {
          end.state = RunEnd::kAborted;
        } else {
          found(store_->copy_of(values));
        }
        end.step = store_->step;
        end.seconds = now_seconds() - start;
        return end;
      },
      std::move(events));
}

std::shared_ptr<Run> Session::reestimate(int64_t batches, RunEvents events) {
  return start(
      "reestimate",
      [this, batches](Run& run) {
        const Here here(stream_);
        const double start = now_seconds();
        RunEnd end;
        const ParameterStore::Averaged averages(*store_);
        int64_t averaged = 0;
        for (int64_t i = 0; i < batches; ++i) {
          if (run.stopping()) {
            end.state = RunEnd::kAborted;
            break;
          }
          const Batch examples = batches_.plain(i, 0);
          for (const Batch& part : micro_batches(examples, options_.micro_batch)) {
            executor_->observe(part, {.how = Statistics::kAverage, .averaged = averaged});
            ++averaged;
          }
          end.examples += static_cast<int64_t>(examples.examples.size());
        }
        end.step = store_->step;
        end.seconds = now_seconds() - start;
        return end;
      },
      std::move(events));
}

}  // namespace lth
