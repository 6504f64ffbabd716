#include "train/batches.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "core/random.h"
#include "core/shape.h"

namespace lth {
namespace {

constexpr int kBatchesAhead = 3;  // that are read while the network trains on one

DataOptions checked(DataOptions o) {
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
  return o;
}

}  // namespace

Batches::Batches(DataOptions options)
    : options_(checked(std::move(options))),
      split_(split(*options_.train, options_.validation, options_.seed, options_.subset)),
      order_(options_.seed, options_.replicate, static_cast<int64_t>(split_.train.size()), options_.batch) {
  if (options_.test) {
    test_.resize(static_cast<size_t>(options_.test->count));
    std::iota(test_.begin(), test_.end(), 0);
  }
  if (const auto& pictures = options_.train->pictures) {
    training_ = std::make_unique<PictureStream>(pictures->set,
                                                stream_options(*pictures, pictures->training, split_.train));
  }
}

const std::vector<int32_t>& Batches::rows(SplitName split) const {
  switch (split) {
    case SplitName::kTrain: return split_.train;
    case SplitName::kValidation: return split_.validation;
    case SplitName::kTest: return test_;
  }
  return split_.train;
}

const Dataset& Batches::data_of(SplitName split) const {
  return split == SplitName::kTest ? *options_.test : *options_.train;
}

std::vector<int32_t> Batches::rows_at(int64_t step, uint64_t noise) {
  std::vector<int32_t> rows;
  for (int32_t index : order_.batch(step, noise)) rows.push_back(split_.train[index]);
  return rows;
}

StreamOptions Batches::stream_options(const FilePictures& pictures, const CropRule& crop,
                                      std::span<const int32_t> rows) const {
  StreamOptions o;
  o.loader = {.crop = crop,
              .channels_last = false,
              .upright = pictures.upright,
              .threads = options_.workers,
              .ahead = kBatchesAhead,
              .memory = options_.memory};
  o.rows.assign(rows.begin(), rows.end());
  o.batch = options_.batch;
  o.seed = options_.seed;
  o.replicate = options_.replicate;
  return o;
}

Batch Batches::batch_of(SplitName split, std::shared_ptr<const PictureBatch> pictures) {
  pictures_ = std::move(pictures);
  for (const PictureFailure& one : pictures_->failures) {
    const std::lock_guard lock(mutex_);
    if (known_.insert({split, one.row}).second) replaced_.push_back({split, one.row, one.taken, one.why});
  }
  return {.data = &data_of(split),
          .examples = pictures_->rows,
          .crops = {},
          .dropout = {},
          .images = pictures_->images.get(),
          .labels = pictures_->labels.data()};
}

std::vector<Replaced> Batches::replaced() {
  const std::lock_guard lock(mutex_);
  return std::exchange(replaced_, {});
}

std::span<const Crop> Batches::crops(std::span<const int32_t> rows, int64_t step, uint64_t noise) {
  crops_.clear();
  if (!options_.augment.any()) return {};
  const auto epoch = static_cast<uint32_t>(step / updates_per_epoch());
  for (int32_t row : rows) {
    crops_.push_back(crop_of(options_.seed, options_.replicate, noise, epoch, row, options_.augment));
  }
  return crops_;
}

void Batches::read_until(int64_t step) {
  if (training_) training_->until(step);
}

Batch Batches::training(int64_t step, uint64_t noise) {
  Batch out;
  if (training_) {
    out = batch_of(SplitName::kTrain, training_->at(step, noise));
  } else {
    rows_ = rows_at(step, noise);
    out = {options_.train.get(), rows_, crops(rows_, step, noise)};
  }
  const auto epoch = static_cast<uint32_t>(step / updates_per_epoch());
  out.dropout = dropout_noise(options_.seed, options_.replicate, noise, epoch);
  out.smoothing = options_.label_smoothing;
  return out;
}

Batch Batches::plain(int64_t step, uint64_t noise) {
  if (const auto& pictures = options_.train->pictures) {
    if (!plain_) {
      plain_ = std::make_unique<PictureStream>(pictures->set,
                                               stream_options(*pictures, pictures->evaluation, split_.train));
    }
    plain_->until(step + 1);
    return batch_of(SplitName::kTrain, plain_->at(step, noise));
  }
  rows_ = rows_at(step, noise);
  return {options_.train.get(), rows_, {}};
}

Batches::Sequence::Sequence(Batches& of, SplitName split, std::span<const int32_t> rows, int64_t size)
    : of_(of), split_(split), left_(rows), size_(static_cast<size_t>(size)) {
  const Dataset& data = of.data_of(split);
  if (!data.pictures || rows.empty()) return;
  StreamOptions o = of.stream_options(*data.pictures, data.pictures->evaluation, rows);
  o.batch = size;
  o.shuffle = false;
  o.until = tasks_for(static_cast<int64_t>(rows.size()), size);
  pictures_ = std::make_unique<PictureStream>(data.pictures->set, std::move(o));
}

Batch Batches::Sequence::next() {
  const std::span<const int32_t> rows = left_.first(std::min(size_, left_.size()));
  left_ = left_.subspan(rows.size());
  if (pictures_) return of_.batch_of(split_, pictures_->take());
  return {&of_.data_of(split_), rows, {}};
}

std::vector<int32_t> Batches::score_rows(int64_t per_class) const {
  const auto order = permutation(stream(options_.seed, options_.replicate, Purpose::kScore, 0),
                                 static_cast<int64_t>(split_.train.size()), 0, 0);
  const Dataset& data = *options_.train;
  std::vector<int64_t> missing(static_cast<size_t>(data.classes), per_class);
  std::vector<int32_t> rows;
  for (int32_t index : order) {
    const int32_t row = split_.train[index];
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

std::vector<Batch> micro_batches(const Batch& batch, int64_t most) {
  const size_t size = batch.examples.size(), at_once = most == 0 ? size : static_cast<size_t>(most);
  std::vector<Batch> parts;
  for (size_t first = 0; first < size; first += at_once) {
    const size_t count = std::min(at_once, size - first);
    Batch& part = parts.emplace_back(batch);
    part.examples = batch.examples.subspan(first, count);
    if (!batch.crops.empty()) part.crops = batch.crops.subspan(first, count);
    if (batch.images) part.images = batch.images + static_cast<int64_t>(first) * batch.data->features;
    if (batch.labels) part.labels = batch.labels + first;
  }
  return parts;
}

}  // namespace lth
