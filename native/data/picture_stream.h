// The batches of a training or an evaluation, asked of a loader ahead of time.
#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "data/order.h"
#include "data/picture_loader.h"

namespace lth {

struct StreamOptions {
  LoaderOptions loader;
  std::vector<int32_t> rows;  // of the set, which batches are made of
  int64_t batch = 1;          // the last one of an epoch holds what is left
  bool shuffle = true;        // by the data order; else as `rows` has them, and all epochs draw the same crops
  uint64_t seed = 0;
  uint32_t replicate = 0;
  uint64_t noise = 0;
  // Of a batch this one's part alone, as many processes share it: in all of them each example comes once. No batch may be
  // smaller than `ranks`, the last one of an epoch neither.
  int64_t rank = 0, ranks = 1;
  int64_t from = 0, until = 0;  // steps
};

// For one thread, but for `loader`.
class PictureStream {
 public:
  PictureStream(std::shared_ptr<const PictureSet> set, StreamOptions options);

  PictureLoader& loader() { return loader_; }
  int64_t batches_per_epoch() const { return order_.updates_per_epoch(); }
  // Asks for the batches that come next, as many as the loader takes.
  void fill();
  // The next batch; null after the last one. Errors are those of the loader.
  std::shared_ptr<const PictureBatch> take();
  // From here on the batches of `step` and after it, of `noise`.
  void seek(int64_t step, uint64_t noise);
  // The batch of `step`, which need not come next.
  std::shared_ptr<const PictureBatch> at(int64_t step, uint64_t noise);
  // Batches are asked for before this step.
  void until(int64_t step) { options_.until = step; }

 private:
  PictureRequest request_of(int64_t step);

  std::shared_ptr<const PictureSet> set_;
  StreamOptions options_;
  DataOrder order_;
  int64_t asked_, taken_;  // steps before
  PictureLoader loader_;
};

}  // namespace lth
