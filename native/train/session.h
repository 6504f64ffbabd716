// A network in training: parameters, optimiser, batches and threads. Used by one thread at a time: while a run is
// going on, every other call is refused with "busy".
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "exec/scores.h"
#include "exec/stream_lease.h"
#include "train/batches.h"
#include "train/run.h"
#include "train/session_options.h"

namespace lth {

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

  // Also while a run is going on.
  int64_t step() const { return step_.load(std::memory_order_relaxed); }
  int64_t examples(SplitName split) const { return static_cast<int64_t>(batches_.rows(split).size()); }
  int64_t updates_per_epoch() const { return batches_.updates_per_epoch(); }
  // From any thread, at any time.
  std::vector<Replaced> replaced() { return batches_.replaced(); }
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
  std::vector<int32_t> batch(int64_t step, uint64_t noise) { return batches_.rows_at(step, noise); }
  Gradients gradients(int64_t step, uint64_t noise);
  // How an update's products are made with the masks at hand, layer by layer; none where there is no choice.
  std::vector<KernelChoice> kernels() { return executor_->kernels(); }
  struct Memory {
    int64_t weights = 0, gradients = 0, optimiser = 0, average = 0;  // bytes
  };
  Memory memory() const;
  std::vector<int32_t> score_rows(int64_t per_class) const { return batches_.score_rows(per_class); }

  // All of these claim the session, start a thread and return at once. It stays busy until the run's thread has ended.
  std::shared_ptr<Run> train(const TrainOptions& options, RunEvents events);
  // `examples` of the split, evenly spaced over it; 0: all. Evaluations, in trainings too, are of the moving averages where
  // they are kept, and so is `reestimate`, which is for evaluations.
  std::shared_ptr<Run> evaluate(SplitName split, int64_t examples, RunEvents events);
  // Running statistics become the mean of those of the first `batches` batches of noise 0, without augmentation, each
  // (micro-)batch counted once; weights, optimiser state and step stay. One that is aborted leaves them half done.
  std::shared_ptr<Run> reestimate(int64_t batches, RunEvents events);
  // Scores of the weights as they are (paper 4.2), fp64; of `score_rows`, in batches of the training's size, or of its
  // micro-batches, as evaluations see them. Changes nothing; `found` is given them on the run's thread, before its end.
  using Found = std::function<void(std::shared_ptr<const Snapshot>)>;
  std::shared_ptr<Run> scores(ScoreMethod method, int64_t per_class, Found found, RunEvents events);
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
  // One that is stopped is not complete.
  Evaluation evaluate_rows(SplitName split, std::span<const int32_t> rows, const Run& run);
  std::shared_ptr<Run> start(const char* operation, Run::Work work, RunEvents events);
  // Gradients of the mean loss over the whole batch, made of its micro-batches one after another.
  BatchResult train_batch(const Batch& batch, const Statistics& statistics, Executor::Wanted wanted);
  void stepped() { step_.store(store_->step, std::memory_order_relaxed); }

  SessionOptions options_;
  Isa isa_;
  Batches batches_;
  std::unique_ptr<StreamLease> lease_;
  std::optional<c10::Stream> stream_;  // on CUDA
  std::unique_ptr<Pool> pool_;
  std::unique_ptr<ParameterStore> store_;
  std::unique_ptr<Executor> executor_;
  at::Tensor summed_;  // gradients of the micro-batches before
  std::atomic<bool> busy_{false};
  std::atomic<int64_t> step_{0};  // store_->step, for other threads
  std::shared_ptr<Run> run_;
};

}  // namespace lth
