#include "train/session.h"

#include <ATen/Context.h>
#include <c10/core/Device.h>
#include <c10/core/StreamGuard.h>

#include <cmath>
#include <numeric>

#include "core/error.h"
#include "core/random.h"
#include "core/shape.h"
#include "cuda/cuda.h"
#include "cuda/device_kernels.h"
#include "exec/libtorch.h"
#include "jpeg/pictures.h"

namespace lth {
namespace {

Normaliser normaliser_of(const SessionOptions& o) {
  const size_t channels = o.train->mean.size();
  Normaliser n;
  for (size_t c = 0; c < channels; ++c) {
    const double mean = o.mean.empty() ? 0 : o.mean[c], std = o.std.empty() ? 1 : o.std[c];
    n.scale.push_back(1 / (255 * std));
    n.shift.push_back(-mean / std);
  }
  return n;
}

constexpr int kBatchesAhead = 3;  // that are read while the network trains on one

void check(const SessionOptions& o) {
  check(o.choice.tuning);
  const NetworkSpec& spec = o.network->spec;
  for (const Dataset* data : {o.train.get(), o.test.get()}) {
    if (!data) continue;
    if (data->shape != spec.input) {
      throw Error("wrong-shape", "[session] network " + spec.name + " reads examples of shape " +
                                     text_of(spec.input) + ", the data set has " + text_of(data->shape));
    }
    if (data->classes > spec.classes) {
      throw Error("wrong-shape", "[session] network " + spec.name + " has " + std::to_string(spec.classes) +
                                     " classes, the data set has " + std::to_string(data->classes));
    }
  }
  if (o.bf16 && !o.network->convolutional()) {
    throw Error("unsupported", "[session] precision bf16 is for networks with convolutions, and " + spec.name +
                                   " has none: use fp32");
  }
  if (o.bf16 && o.executor == SessionOptions::kAutograd) {
    throw Error("unsupported", "[session] executor autograd knows fp32 and fp64 alone, not bf16");
  }
  const bool has_a_choice = o.executor == SessionOptions::kDirect && o.device == "cpu";
  if (o.choice.products != Products::kAuto && !has_a_choice) {
    throw Error("unsupported", "[session] kernels dense and sparse are for executor direct on the CPU: use auto");
  }
  if (o.validation < 0 || o.validation >= o.train->count) {
    throw Error("invalid-argument", "[session] validation holds out " + std::to_string(o.validation) + " of " +
                                        std::to_string(o.train->count) + " examples: none is left to train on");
  }
  if (o.augment.any() && o.train->pictures) {
    throw Error("unsupported", "[session] augment: pictures in files have crops of their own");
  }
  if (o.augment.any() && o.train->shape.size() != 3) {
    throw Error("wrong-shape", "[session] augment wants pictures (C,H,W), the data set has examples of shape " +
                                   text_of(o.train->shape));
  }
  const size_t channels = o.train->mean.size();
  if ((!o.mean.empty() || !o.std.empty()) && (o.mean.size() != channels || o.std.size() != channels)) {
    throw Error("wrong-shape", "[session] normalise wants " + std::to_string(channels) + " means and deviations, has " +
                                   std::to_string(o.mean.size()) + " and " + std::to_string(o.std.size()));
  }
}

const char* name_of(SessionOptions::Executor executor) {
  switch (executor) {
    case SessionOptions::kDirect: return "direct";
    case SessionOptions::kAten: return "aten";
    default: return "autograd";
  }
}

// LibTorch's setting is per calling thread. Its calls run on one thread each: parallelism is ours, over tasks whose
// bits do not depend on how many there are.
void use_one_thread() { at::set_num_threads(1); }

// The calling thread does a session's work.
struct Here {
  explicit Here(const std::optional<c10::Stream>& stream) : guard(stream) { use_one_thread(); }
  c10::OptionalStreamGuard guard;
};

// What LibTorch keeps for the whole process. Whether NNPACK runs depends on the CPU and on the size of a batch: bits must
// not. Nor on which of cuDNN's algorithms is the fastest today (some of those cannot be recorded either); and fp32 is
// fp32, not TF32.
void set_flags_once() {
  static const bool done = [] {
    at::Context& context = at::globalContext();
    context.setUserEnabledNNPACK(false);
    context.setDeterministicCuDNN(true);
    context.setBenchmarkCuDNN(false);
    context.setAllowTF32CuDNN(false);
    context.setAllowTF32CuBLAS(false);
    return true;
  }();
  (void)done;
}

// What is evaluated: the moving averages in the place of the weights, as long as this lives.
class Evaluated {
 public:
  explicit Evaluated(ParameterStore& store) : store_(store) { store_.swap_average(); }
  ~Evaluated() {
    try {
      store_.swap_average();
    } catch (...) {  // of a device that is lost, and the session with it
    }
  }
  Evaluated(const Evaluated&) = delete;
  Evaluated& operator=(const Evaluated&) = delete;

 private:
  ParameterStore& store_;
};

}  // namespace

Session::Session(SessionOptions options) : options_(std::move(options)), isa_(chosen_isa()) {
  check(options_);
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
  const ParameterStore::Kind kind = aten                                                   ? ParameterStore::kAten
                                    : options_.executor == SessionOptions::kAutograd ? ParameterStore::kWhole
                                                                                     : ParameterStore::kPacked;
  store_ = std::make_unique<ParameterStore>(options_.network, options_.precision, device, kind,
                                            options_.optimiser.state_names());
  store_->set_decayed(options_.optimiser.decayed);
  if (options_.average.any()) store_->keep_average();
  Split parts = split(*options_.train, options_.validation, options_.seed, options_.subset);
  train_ = std::move(parts.train);
  validation_ = std::move(parts.validation);
  if (options_.test) {
    test_.resize(options_.test->count);
    std::iota(test_.begin(), test_.end(), 0);
  }
  order_ = std::make_unique<DataOrder>(options_.seed, options_.replicate, static_cast<int64_t>(train_.size()),
                                       options_.batch);
  if (const auto& pictures = options_.train->pictures) {
    training_pictures_ = std::make_unique<PictureStream>(pictures->set, stream_options(pictures->training, train_));
  }
  Normaliser normaliser = normaliser_of(options_);
  int64_t largest = std::min<int64_t>(options_.batch, static_cast<int64_t>(train_.size()));
  if (options_.micro_batch > 0) largest = std::min(largest, options_.micro_batch);
  if (options_.executor == SessionOptions::kAutograd) {
    executor_ = autograd(*store_, std::move(normaliser));
  } else if (aten) {
    const bool our_kernels = options_.executor == SessionOptions::kDirect;
    executor_ = direct_aten(*store_, options_.bf16, our_kernels, std::move(normaliser));
  } else if (options_.network->convolutional()) {
    executor_ = direct_conv(*store_, *pool_, isa_, options_.bf16, options_.choice, std::move(normaliser), largest);
  } else {
    executor_ = direct_cpu(*store_, *pool_, isa_, options_.choice, std::move(normaliser), largest);
  }
  store_->initialise(options_.seed, options_.replicate, 0);
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
                     " executor=" + name_of(options_.executor) +
                     " precision=" + (options_.bf16 ? "bf16" : fp64 ? "fp64" : "fp32");
  // There is one table in fp64, and none of its own for AVX512_BF16 in fp32.
  if (cpu) text += std::string(" isa=") + name_of(fp64 ? Isa::kPortable : options_.bf16 ? isa_ : kernels_f32(isa_).isa);
  // LibTorch's own decides what scores of pruning at initialisation are, which go through its autograd.
  if (cpu && options_.network->convolutional()) {
    text += " convolutions=" + std::to_string(kConvolutionsVersion) + " libtorch-isa=" + libtorch_isa();
  }
  if (options_.train->pictures) {
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
  store_->initialise(options_.seed, options_.replicate, draw);
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

const std::vector<int32_t>& Session::examples_of(SplitName split) const {
  switch (split) {
    case SplitName::kTrain: return train_;
    case SplitName::kValidation: return validation_;
    case SplitName::kTest: return test_;
  }
  return train_;
}

const Dataset& Session::data_of(SplitName split) const {
  return split == SplitName::kTest ? *options_.test : *options_.train;
}

std::vector<int32_t> Session::batch(int64_t step, uint64_t noise) {
  std::vector<int32_t> rows;
  for (int32_t index : order_->batch(step, noise)) rows.push_back(train_[index]);
  return rows;
}

StreamOptions Session::stream_options(const CropRule& crop, std::span<const int32_t> rows) const {
  StreamOptions o;
  o.loader = {.crop = crop, .channels_last = false, .upright = options_.train->pictures->upright, .threads = options_.workers, .ahead = kBatchesAhead};
  o.rows.assign(rows.begin(), rows.end());
  o.batch = options_.batch;
  o.seed = options_.seed;
  o.replicate = options_.replicate;
  return o;
}

Batch Session::batch_of(const Dataset& data, std::shared_ptr<const PictureBatch> pictures) {
  pictures_ = std::move(pictures);
  for (const PictureFailure& one : pictures_->failures) {
    const bool test = &data != options_.train.get();
    const std::lock_guard lock(replaced_mutex_);
    if (known_.insert({test, one.row}).second) replaced_.push_back({test, one.row, one.taken, one.why});
  }
  return {.data = &data,
          .examples = pictures_->rows,
          .crops = {},
          .dropout = {},
          .images = pictures_->images.get(),
          .labels = pictures_->labels.data()};
}

std::vector<Replaced> Session::replaced() {
  const std::lock_guard lock(replaced_mutex_);
  return std::exchange(replaced_, {});
}

Batch Session::training_batch(int64_t step, uint64_t noise) {
  Batch out;
  if (training_pictures_) {
    out = batch_of(*options_.train, training_pictures_->at(step, noise));
  } else {
    rows_ = batch(step, noise);
    out = {options_.train.get(), rows_, crops(rows_, step, noise)};
  }
  const auto epoch = static_cast<uint32_t>(step / updates_per_epoch());
  out.dropout = dropout_noise(options_.seed, options_.replicate, noise, epoch);
  out.smoothing = options_.label_smoothing;
  return out;
}

std::vector<Batch> Session::micro_batches(const Batch& batch) const {
  const size_t size = batch.examples.size(), most = options_.micro_batch == 0 ? size : static_cast<size_t>(options_.micro_batch);
  std::vector<Batch> parts;
  for (size_t first = 0; first < size; first += most) {
    const size_t count = std::min(most, size - first);
    Batch& part = parts.emplace_back(batch);
    part.examples = batch.examples.subspan(first, count);
    if (!batch.crops.empty()) part.crops = batch.crops.subspan(first, count);
    if (batch.images) part.images = batch.images + static_cast<int64_t>(first) * batch.data->features;
    if (batch.labels) part.labels = batch.labels + first;
  }
  return parts;
}

BatchResult Session::train_batch(const Batch& batch, const Statistics& statistics, Executor::Wanted wanted) {
  const auto size = static_cast<int64_t>(batch.examples.size());
  if (options_.micro_batch == 0 || size <= options_.micro_batch) return executor_->train(batch, statistics, wanted);
  const std::vector<Batch> parts = micro_batches(batch);
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

Batch Session::plain_batch(int64_t step, uint64_t noise) {
  if (const auto& pictures = options_.train->pictures) {
    if (!plain_pictures_) plain_pictures_ = std::make_unique<PictureStream>(pictures->set, stream_options(pictures->evaluation, train_));
    plain_pictures_->until(step + 1);
    return batch_of(*options_.train, plain_pictures_->at(step, noise));
  }
  rows_ = batch(step, noise);
  return {options_.train.get(), rows_, {}};
}

std::span<const Crop> Session::crops(std::span<const int32_t> rows, int64_t step, uint64_t noise) {
  crops_.clear();
  if (!options_.augment.any()) return {};
  const auto epoch = static_cast<uint32_t>(step / updates_per_epoch());
  for (int32_t row : rows) {
    crops_.push_back(crop_of(options_.seed, options_.replicate, noise, epoch, row, options_.augment));
  }
  return crops_;
}

Gradients Session::gradients(int64_t step, uint64_t noise) {
  const Here here(stream_);
  if (training_pictures_) training_pictures_->until(step + 1);
  const Batch examples = training_batch(step, noise);
  const BatchResult result = train_batch(examples, {Statistics::kLeave}, Executor::Wanted::kAll);
  return {result.loss / static_cast<double>(examples.examples.size()), result.correct, store_->gradient_snapshot()};
}

std::vector<int32_t> Session::score_examples(int64_t per_class) const {
  const auto order = permutation(stream(options_.seed, options_.replicate, Purpose::kScore, 0),
                                 static_cast<int64_t>(train_.size()), 0, 0);
  const Dataset& data = *options_.train;
  std::vector<int64_t> missing(static_cast<size_t>(data.classes), per_class);
  std::vector<int32_t> rows;
  for (int32_t index : order) {
    const int32_t row = train_[index];
    int64_t& wanted = missing[static_cast<size_t>(data.labels[row])];
    if (wanted == 0) continue;
    --wanted;
    rows.push_back(row);
  }
  for (int c = 0; c < data.classes; ++c) {
    if (missing[c] == 0) continue;
    throw Error("invalid-argument", "[scores] perClass: wants " + std::to_string(per_class) + " examples of class " +
                                        std::to_string(c) + ", the training set has " +
                                        std::to_string(per_class - missing[c]));
  }
  return rows;
}

std::shared_ptr<const Snapshot> Session::scores(ScoreMethod method, int64_t per_class) {
  const Here here(stream_);
  std::vector<int32_t> rows;
  std::vector<Batch> batches;
  if (needs_examples(method)) {
    if (options_.train->pictures) {
      throw Error("unsupported", "[scores] scores of examples want a data set in memory, not pictures in files");
    }
    rows = score_examples(per_class);
    for (size_t i = 0; i < rows.size(); i += static_cast<size_t>(options_.batch)) {
      const size_t size = std::min(static_cast<size_t>(options_.batch), rows.size() - i);
      batches.push_back({options_.train.get(), std::span(rows).subspan(i, size), {}});
    }
  }
  return store_->copy_of(lth::scores(method, *store_, normaliser_of(options_), batches));
}

Session::Evaluation Session::evaluate_split(SplitName split, const Run* run) {
  return evaluate_rows(data_of(split), examples_of(split), run);
}

Session::Evaluation Session::evaluate_rows(const Dataset& data, std::span<const int32_t> rows, const Run* run) {
  const int64_t at_once = executor_->evaluation_batch(), count = static_cast<int64_t>(rows.size());
  const Evaluated averages(*store_);
  Evaluation e;
  int64_t correct = 0;
  std::unique_ptr<PictureStream> stream;
  if (data.pictures) {
    StreamOptions o = stream_options(data.pictures->evaluation, rows);
    o.batch = at_once;
    o.shuffle = false;
    o.until = tasks_for(count, at_once);
    stream = std::make_unique<PictureStream>(data.pictures->set, std::move(o));
  }
  for (int64_t i = 0; i < count; i += at_once) {
    if (run && run->stopping()) {
      e.complete = false;
      return e;
    }
    const BatchResult r = executor_->evaluate(stream ? batch_of(data, stream->take())
                                                     : Batch{&data, rows.subspan(i, std::min(at_once, count - i)), {}});
    e.loss += r.loss;
    correct += r.correct;
  }
  e.loss /= static_cast<double>(count);
  e.accuracy = static_cast<double>(correct) / static_cast<double>(count);
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
      const Evaluation e = evaluate_split(split, &run);
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
  if (training_pictures_) training_pictures_->until(o.until);
  while (evaluated && store_->step < o.until) {
    if (run.stopping()) return end(RunEnd::kAborted);
    const int64_t step = store_->step;
    // Without a look at whether the weights are finite: where a training is cut must not decide how it ends.
    if (step > first && (run.pausing() || step == o.pause_at)) {
      run.announce(true);
      return end(RunEnd::kPaused);
    }
    const Batch examples = training_batch(step, o.noise);
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
  const std::vector<int32_t>& all = examples_of(split);
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
        const Evaluation e = evaluate_rows(data_of(split), rows, &run);
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

std::shared_ptr<Run> Session::reestimate(int64_t batches, RunEvents events) {
  return start(
      "reestimate",
      [this, batches](Run& run) {
        const Here here(stream_);
        const double start = now_seconds();
        RunEnd end;
        const Evaluated averages(*store_);
        int64_t averaged = 0;
        for (int64_t i = 0; i < batches; ++i) {
          if (run.stopping()) {
            end.state = RunEnd::kAborted;
            break;
          }
          const Batch examples = plain_batch(i, 0);
          for (const Batch& part : micro_batches(examples)) {
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
