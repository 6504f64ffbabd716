// A network in training: parameters, optimiser, data order and threads. Used by one thread at a time: while a run is
// going on, every other call is refused with "busy".
#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "data/augment.h"
#include "data/dataset.h"
#include "data/order.h"
#include "data/picture_stream.h"
#include "exec/executor.h"
#include "exec/scores.h"
#include "exec/stream_lease.h"
#include "train/average.h"
#include "train/optimiser.h"
#include "train/run.h"
#include "train/schedule.h"

namespace lth {

struct SessionOptions {
  std::shared_ptr<const CompiledNetwork> network;
  std::shared_ptr<const Dataset> train, test;  // test may be null
  int64_t validation = 0;
  int64_t subset = 0;  // examples that are trained on, of those not held out; 0: all
  uint64_t seed = 0;
  uint32_t replicate = 0;
  int64_t batch = 0;
  int64_t micro_batch = 0;  // examples of a batch that go through the network at once; 0: all
  OptimiserOptions optimiser;
  Schedule schedule;
  AverageOptions average;
  double label_smoothing = 0;  // of training batches' loss
  std::vector<double> mean, std;  // empty: x/255
  Augmentation augment;           // of training batches alone
  std::string device = "cpu";
  Dtype precision = Dtype::kFloat32;  // of weights, gradients, optimiser state, sums
  bool bf16 = false;                  // images between layers, and what convolutions multiply; with kFloat32 alone
  // kDirect is kAten where our kernels do not run; kAten on the CPU is for tests of that; kAutograd is the oracle.
  enum Executor { kDirect, kAten, kAutograd } executor = kDirect;
  Choice choice = {};  // of kDirect on the CPU
  int threads = 1;
  int workers = 1;  // threads beside those that read pictures in files
};

struct TrainOptions {
  int64_t until = 0;
  uint64_t noise = 0;
  int64_t metrics_every = 0, evaluate_every = 0;
  bool evaluate_at_start = false;
  bool ends = true;              // the training ends with this call: rows at its end too, not only at multiples
  bool continues = false;        // the rows that were due when the training was cut come as if it had not been
  int64_t pause_at = 0;          // ends here with kPaused, for a later call that continues; 0: nowhere
  std::vector<SplitName> evaluate;
};

// A picture that could not be read, and which one took its place.
struct Replaced {
  bool test = false;  // else of the training set
  int32_t row = 0, taken = 0;
  std::string why;
};

struct Gradients {
  double loss = 0;  // mean
  int64_t correct = 0;
  std::shared_ptr<const Snapshot> gradients;
};

class Session {
 public:
  // Draws the initial weights: call it where that may take a second (20 million weights).
  explicit Session(SessionOptions options);
  ~Session();

  const SessionOptions& options() const { return options_; }
  // Also while a run is going on.
  int64_t step() const { return step_.load(std::memory_order_relaxed); }
  int64_t examples(SplitName split) const { return static_cast<int64_t>(examples_of(split).size()); }
  int64_t updates_per_epoch() const { return order_->updates_per_epoch(); }
  std::string fingerprint() const;

  // Makes the session busy for an operation, until the claim is released or gone; Error("busy") where it is already.
  class Claim {
   public:
    explicit Claim(std::atomic<bool>& busy) : busy_(&busy) {}
    ~Claim() { release(); }
    Claim(const Claim&) = delete;
    Claim& operator=(const Claim&) = delete;
    void release() {
      if (busy_) busy_->store(false);
      busy_ = nullptr;
    }

   private:
    std::atomic<bool>* busy_;
  };
  std::shared_ptr<Claim> claim(const char* operation);
  // Releases a claim at the end of the work it was made for, before anyone hears of that end: who does may call again.
  struct Release {
    Claim& claim;
    ~Release() { claim.release(); }
  };

  // All of these under a claim, on any thread.
  void initialise(uint64_t draw);
  void load(const Snapshot& snapshot, bool restore_optimiser);
  void set_masks(std::shared_ptr<const Masks> masks);
  void set_step(int64_t step);
  std::shared_ptr<const Snapshot> snapshot();
  std::vector<int32_t> batch(int64_t step, uint64_t noise);
  Gradients gradients(int64_t step, uint64_t noise);
  // How an update's products are made with the masks at hand, layer by layer; none where there is no choice.
  std::vector<KernelChoice> kernels() { return executor_->kernels(); }
  // Pictures that had to be replaced since the last call, of each the first time; from any thread.
  std::vector<Replaced> replaced();
  struct Memory {
    int64_t weights = 0, gradients = 0, optimiser = 0, average = 0;  // bytes
  };
  Memory memory() const;
  // Scores of the weights as they are (paper 4.2), fp64; `per_class` examples of each class, chosen by seed and
  // replicate among those trained on, in batches of the training's size and without augmentation. Changes nothing.
  std::shared_ptr<const Snapshot> scores(ScoreMethod method, int64_t per_class);
  // Rows of the training set that such scores are taken on, in the order in which they make up batches.
  std::vector<int32_t> score_examples(int64_t per_class) const;

  // All three claim the session, start a thread and return at once. It stays busy until the run's thread has ended.
  std::shared_ptr<Run> train(const TrainOptions& options, RunEvents events);
  // `examples` of the split, evenly spaced over it; 0: all. Evaluations, in trainings too, are of the moving averages where
  // they are kept, and so is `reestimate`, which is for evaluations.
  std::shared_ptr<Run> evaluate(SplitName split, int64_t examples, RunEvents events);
  // Running statistics become the mean of those of the first `batches` batches of noise 0, without augmentation, each
  // (micro-)batch counted once; weights, optimiser state and step stay. One that is aborted leaves them half done.
  std::shared_ptr<Run> reestimate(int64_t batches, RunEvents events);
  // Stops and joins what is going on.
  void stop();
  // Has it stop at the next step.
  void abort();

 private:
  struct Evaluation {
    double loss = 0, accuracy = 0;
    bool complete = true;
  };
  RunEnd train_loop(Run& run, const TrainOptions& options);
  Evaluation evaluate_split(SplitName split, const Run* run);
  Evaluation evaluate_rows(const Dataset& data, std::span<const int32_t> rows, const Run* run);
  const std::vector<int32_t>& examples_of(SplitName split) const;
  const Dataset& data_of(SplitName split) const;
  std::shared_ptr<Run> start(const char* operation, Run::Work work, RunEvents events);
  // What update `step` is trained with; valid until the next one.
  Batch training_batch(int64_t step, uint64_t noise);
  // The same before augmentation.
  Batch plain_batch(int64_t step, uint64_t noise);
  std::vector<Batch> micro_batches(const Batch& batch) const;
  // Gradients of the mean loss over the whole batch, made of its micro-batches one after another.
  BatchResult train_batch(const Batch& batch, const Statistics& statistics, Executor::Wanted wanted);
  StreamOptions stream_options(const CropRule& crop, std::span<const int32_t> rows) const;
  Batch batch_of(const Dataset& data, std::shared_ptr<const PictureBatch> pictures);
  // Of the examples of the batch of update `step`; none where nothing is augmented.
  std::span<const Crop> crops(std::span<const int32_t> rows, int64_t step, uint64_t noise);
  void stepped() { step_.store(store_->step, std::memory_order_relaxed); }

  SessionOptions options_;
  Isa isa_;
  std::unique_ptr<StreamLease> lease_;
  std::optional<c10::Stream> stream_;  // on CUDA
  std::unique_ptr<Pool> pool_;
  std::unique_ptr<ParameterStore> store_;
  std::unique_ptr<Executor> executor_;
  std::unique_ptr<DataOrder> order_;
  std::vector<int32_t> train_, validation_, test_;  // rows of the data sets
  std::vector<int32_t> rows_;                       // of the batch at hand
  std::vector<Crop> crops_;                         // of the same
  at::Tensor summed_;                               // gradients of the micro-batches before
  std::unique_ptr<PictureStream> training_pictures_, plain_pictures_;  // of pictures in files
  std::shared_ptr<const PictureBatch> pictures_;                       // the batch at hand
  std::mutex replaced_mutex_;
  std::vector<Replaced> replaced_;
  std::set<std::pair<bool, int32_t>> known_;  // rows that were told of
  std::atomic<bool> busy_{false};
  std::atomic<int64_t> step_{0};  // store_->step, for other threads
  std::shared_ptr<Run> run_;
};

}  // namespace lth
