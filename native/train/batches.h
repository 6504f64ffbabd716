// Where batches come from: which rows of the data are trained on, held out and tested on, in what order they make up
// batches, and what becomes of each before a network sees it.
#pragma once
#include <cstdint>
#include <memory>
#include <mutex>
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
#include "train/metrics.h"

namespace lth {

struct DataOptions {
  std::shared_ptr<const Dataset> train, test;  // test may be null
  int64_t validation = 0;                      // examples of `train` that are held out
  int64_t subset = 0;                          // examples that are trained on, of the others; 0: all
  uint64_t seed = 0;
  uint32_t replicate = 0;
  int64_t batch = 0;
  Augmentation augment;        // of training batches alone
  double label_smoothing = 0;  // of the same ones' loss
  int workers = 1;             // threads beside those that train, which read pictures in files
  const MemorySource* memory = nullptr;  // of batches that they read; null: the system's
};

// A picture that could not be read, and which one took its place.
struct Replaced {
  SplitName split = SplitName::kTrain;
  int32_t row = 0, taken = 0;  // of the data set
  std::string why;
};

// For one thread at a time, but for `replaced`. A batch is valid until the next one is made, by whatever call.
class Batches {
 public:
  // Error("invalid-argument"), Error("wrong-shape"), Error("unsupported") where the options do not fit the data.
  explicit Batches(DataOptions options);

  // Rows of a split's data set, ascending.
  const std::vector<int32_t>& rows(SplitName split) const;
  int64_t updates_per_epoch() const { return order_.updates_per_epoch(); }

  // Rows of the training set that make up the batch of update `step`.
  std::vector<int32_t> rows_at(int64_t step, uint64_t noise);
  // What update `step` is trained with: augmented, or by the training's crop.
  Batch training(int64_t step, uint64_t noise);
  // Pictures in files are read ahead for training batches before this step.
  void read_until(int64_t step);
  // The examples of update `step` as evaluations see them.
  Batch plain(int64_t step, uint64_t noise);

  // Rows of a split in the order in which they are given, as evaluations see them.
  class Sequence {
   public:
    bool done() const { return left_.empty(); }
    // Where it is not done.
    Batch next();

   private:
    friend class Batches;
    Sequence(Batches& of, SplitName split, std::span<const int32_t> rows, int64_t size);

    Batches& of_;
    SplitName split_;
    std::span<const int32_t> left_;
    size_t size_;
    std::unique_ptr<PictureStream> pictures_;  // in files
  };
  // In batches of `size`; the rows must outlive it.
  Sequence in_order(SplitName split, std::span<const int32_t> rows, int64_t size) {
    return {*this, split, rows, size};
  }

  // Rows that scores of pruning at initialisation look at, in their order: `per_class` of each class, chosen by seed and
  // replicate among those trained on. Error("invalid-argument") where a class has fewer.
  std::vector<int32_t> score_rows(int64_t per_class) const;

  // Pictures that had to be replaced in batches since the last call, of each the first time; from any thread.
  std::vector<Replaced> replaced();

 private:
  const Dataset& data_of(SplitName split) const;
  StreamOptions stream_options(const FilePictures& pictures, const CropRule& crop, std::span<const int32_t> rows) const;
  // The pictures become the batch at hand.
  Batch batch_of(SplitName split, std::shared_ptr<const PictureBatch> pictures);
  // Of the batch of update `step`; none where nothing is augmented.
  std::span<const Crop> crops(std::span<const int32_t> rows, int64_t step, uint64_t noise);

  DataOptions options_;
  Split split_;
  std::vector<int32_t> test_;
  DataOrder order_;                               // of split_.train
  std::vector<int32_t> rows_;                     // of the batch at hand
  std::vector<Crop> crops_;                       // of the same
  std::shared_ptr<const PictureBatch> pictures_;  // the batch at hand, of pictures in files
  std::unique_ptr<PictureStream> training_, plain_;

  std::mutex mutex_;  // of what is below
  std::vector<Replaced> replaced_;
  std::set<std::pair<SplitName, int32_t>> known_;  // that were told of
};

// The parts of a batch that go through a network at once, `most` examples each; 0: all.
std::vector<Batch> micro_batches(const Batch& batch, int64_t most);

}  // namespace lth
