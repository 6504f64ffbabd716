#include "data/picture_stream.h"

#include <algorithm>
#include <string>

#include "core/error.h"

namespace lth {

PictureStream::PictureStream(std::shared_ptr<const PictureSet> set, StreamOptions options)
    : set_(std::move(set)),
      options_(std::move(options)),
      order_(options_.seed, options_.replicate, static_cast<int64_t>(options_.rows.size()), options_.batch),
      asked_(options_.from),
      taken_(options_.from),
      loader_(set_, options_.loader) {
  const auto n = static_cast<int64_t>(options_.rows.size()), last = n % options_.batch;
  const int64_t smallest = last > 0 ? last : options_.batch;
  if (options_.ranks < 1 || options_.rank < 0 || options_.rank >= options_.ranks || smallest < options_.ranks) {
    throw Error("invalid-argument", "[loader] rank " + std::to_string(options_.rank) + " of " + std::to_string(options_.ranks) +
                                        " that share batches: the smallest has " + std::to_string(smallest) + " of " +
                                        std::to_string(n) + " examples");
  }
}

PictureRequest PictureStream::request_of(int64_t step) {
  const int64_t per_epoch = order_.updates_per_epoch();
  PictureRequest request;
  request.step = step;
  request.key = {.seed = options_.seed, .replicate = options_.replicate, .noise = options_.noise};
  if (options_.shuffle) {
    request.key.epoch = static_cast<uint32_t>(step / per_epoch);
    for (const int32_t i : order_.batch(step, options_.noise)) request.rows.push_back(options_.rows[static_cast<size_t>(i)]);
  } else {
    const auto first = options_.rows.begin() + step % per_epoch * options_.batch;
    request.rows.assign(first, first + std::min<int64_t>(options_.batch, options_.rows.end() - first));
  }
  if (options_.ranks > 1) {
    const auto n = static_cast<int64_t>(request.rows.size());
    const auto first = request.rows.begin() + options_.rank * n / options_.ranks;
    const auto last = request.rows.begin() + (options_.rank + 1) * n / options_.ranks;
    request.rows = std::vector<int32_t>(first, last);
  }
  return request;
}

void PictureStream::fill() {
  for (; asked_ < options_.until && !loader_.full(); ++asked_) loader_.request(request_of(asked_));
}

std::shared_ptr<const PictureBatch> PictureStream::take() {
  fill();
  if (taken_ >= options_.until) return nullptr;
  ++taken_;
  auto batch = loader_.take();
  fill();
  return batch;
}

std::shared_ptr<const PictureBatch> PictureStream::at(int64_t step, uint64_t noise) {
  if (step != taken_ || noise != options_.noise) seek(step, noise);
  return take();
}

void PictureStream::seek(int64_t step, uint64_t noise) {
  loader_.clear();
  options_.noise = noise;
  asked_ = taken_ = step;
}

}  // namespace lth
