#include "data/picture_loader.h"

#include <algorithm>
#include <cstring>
#include <system_error>

#include "core/error.h"

namespace lth {
namespace {

constexpr int kMostAhead = 1024;

}  // namespace

struct PictureLoader::Job {
  PictureRequest request;
  std::shared_ptr<PictureBatch> batch = std::make_shared<PictureBatch>();
  int64_t next = 0;    // position that nobody has begun
  int64_t left = 0;    // positions that are not done
  std::string code, message;  // of what is not the fault of a file

  bool done() const { return left == 0; }
  // Puts others in the place of what could not be read.
  void replace_failures();
};

PictureLoader::PictureLoader(std::shared_ptr<const PictureSet> set, LoaderOptions options)
    : set_(std::move(set)),
      options_(options),
      memory_(BatchMemory::create(static_cast<size_t>(std::clamp(options.ahead, 1, kMostAhead)), options.memory)) {
  check(options_.crop);
  if (options_.threads < 1 || options_.threads > 1024 || options_.ahead < 1 || options_.ahead > kMostAhead) {
    throw Error("invalid-argument", "[loader] expected 1 to 1024 threads and batches ahead");
  }
  const PictureReader works;  // else it is said now
  try {
    for (int i = 0; i < options_.threads; ++i) threads_.emplace_back([this] { work(); });
  } catch (const std::system_error& error) {
    stop();
    throw Error("io", "[loader] cannot start thread " + std::to_string(threads_.size() + 1) + " of " +
                          std::to_string(options_.threads) + ": " + error.what());
  }
}

void PictureLoader::stop() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
    ++changes_;
  }
  work_.notify_all();
  changed_.notify_all();
  std::lock_guard lock(join_);
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

bool PictureLoader::full() const {
  std::lock_guard lock(mutex_);
  return static_cast<int>(jobs_.size()) >= options_.ahead;
}

void PictureLoader::request(PictureRequest request) {
  if (request.rows.empty()) throw Error("invalid-argument", "[loader] a batch of no examples");
  for (const int32_t row : request.rows) {
    if (row < 0 || row >= set_->count()) {
      throw Error("invalid-argument", "[loader] row " + std::to_string(row) + " of " + std::to_string(set_->count()));
    }
  }
  auto job = std::make_shared<Job>();
  PictureBatch& batch = *job->batch;
  batch.step = request.step;
  batch.features = 3 * options_.crop.size * options_.crop.size;
  batch.rows = request.rows;
  for (const int32_t row : batch.rows) batch.labels.push_back(set_->label(row));
  batch.images = memory_->take(static_cast<size_t>(batch.bytes()));
  job->left = batch.count();
  job->request = std::move(request);
  {
    std::lock_guard lock(mutex_);
    if (static_cast<int>(jobs_.size()) >= options_.ahead) {
      throw Error("busy", "[loader] " + std::to_string(options_.ahead) + " batches are asked for already");
    }
    jobs_.push_back(std::move(job));
  }
  work_.notify_all();
}

std::shared_ptr<const PictureBatch> PictureLoader::hand_out() {
  const std::shared_ptr<Job> job = std::move(jobs_.front());
  jobs_.pop_front();
  ++changes_;
  changed_.notify_all();
  if (!job->code.empty()) throw Error(job->code, job->message);
  return job->batch;
}

std::shared_ptr<const PictureBatch> PictureLoader::take() {
  std::unique_lock lock(mutex_);
  if (jobs_.empty() && !stop_) throw Error("invalid-argument", "[loader] no batch was asked for");
  changed_.wait(lock, [&] { return stop_ || jobs_.empty() || jobs_.front()->done(); });
  if (stop_ || jobs_.empty()) throw Error("disposed", "[loader] was stopped");
  return hand_out();
}

std::shared_ptr<const PictureBatch> PictureLoader::try_take() {
  std::lock_guard lock(mutex_);
  if (stop_) throw Error("disposed", "[loader] was stopped");
  return jobs_.empty() || !jobs_.front()->done() ? nullptr : hand_out();
}

bool PictureLoader::ready() const {
  std::lock_guard lock(mutex_);
  return !jobs_.empty() && jobs_.front()->done();
}

void PictureLoader::wait(std::chrono::milliseconds most) {
  std::unique_lock lock(mutex_);
  const uint64_t seen = changes_;
  changed_.wait_for(lock, most, [&] { return changes_ != seen || stop_; });
}

void PictureLoader::clear() {
  std::lock_guard lock(mutex_);
  jobs_.clear();
  ++changes_;
  changed_.notify_all();
}

void PictureLoader::work() {
  PictureInput input(isa_);
  std::vector<std::byte> file;
  std::unique_lock lock(mutex_);
  for (;;) {
    // The oldest that has a picture left to begin.
    std::shared_ptr<Job> job;
    work_.wait(lock, [&] {
      for (const auto& one : jobs_) {
        if (one->next < one->batch->count()) {
          job = one;
          break;
        }
      }
      return stop_ || job;
    });
    if (stop_) return;
    const int64_t position = job->next++;
    lock.unlock();
    make(*job, position, input, file);
    lock.lock();
    if (--job->left > 0) continue;
    job->replace_failures();
    ++changes_;
    changed_.notify_all();
  }
}

void PictureLoader::make(Job& job, int64_t position, PictureInput& input, std::vector<std::byte>& file) {
  PictureBatch& batch = *job.batch;
  const int32_t row = job.request.rows[static_cast<size_t>(position)];
  CropKey key = job.request.key;
  key.example = row;
  const int64_t size = options_.crop.size;
  uint8_t* base = batch.images.get() + position * batch.features;
  const PixelLayout to = options_.channels_last ? PixelLayout{base, 3 * size, 3, 1} : PixelLayout{base, size, 1, size * size};
  try {
    input.make(set_->read(row, file), set_->path(row), options_.crop, key, options_.upright, to);
    if (input.warnings() > 0) {
      std::lock_guard lock(mutex_);
      ++batch.warnings;
    }
  } catch (const Error& error) {
    std::lock_guard lock(mutex_);
    // Of a file that cannot be had now nothing is known: another picture in its place would be a result of the weather.
    if (error.code() == "io") {
      job.code = error.code();
      job.message = error.what();
    } else {
      batch.failures.push_back({.position = position, .row = row, .taken = row, .why = error.what()});
    }
  } catch (const std::exception& error) {
    std::lock_guard lock(mutex_);
    job.code = "native";
    job.message = "[loader] " + set_->path(row) + ": " + error.what();
  }
  if (file.capacity() > PictureReader::kMostKept) std::vector<std::byte>().swap(file);
}

void PictureLoader::Job::replace_failures() {
  PictureBatch& b = *batch;
  if (b.failures.empty() || !code.empty()) return;
  std::sort(b.failures.begin(), b.failures.end(), [](const auto& x, const auto& y) { return x.position < y.position; });
  if (static_cast<int64_t>(b.failures.size()) == b.count()) {
    code = "corrupt-file";
    message = "[loader] none of the " + std::to_string(b.count()) + " pictures of batch " + std::to_string(b.step) +
              " can be read; the first: " + b.failures.front().why;
    return;
  }
  std::vector<bool> failed(b.rows.size());
  for (const PictureFailure& failure : b.failures) failed[static_cast<size_t>(failure.position)] = true;
  for (PictureFailure& failure : b.failures) {
    int64_t from = failure.position;
    do from = (from + 1) % b.count();
    while (failed[static_cast<size_t>(from)]);
    std::memcpy(b.images.get() + failure.position * b.features, b.images.get() + from * b.features,
                static_cast<size_t>(b.features));
    failure.taken = b.rows[static_cast<size_t>(failure.position)] = request.rows[static_cast<size_t>(from)];
    b.labels[static_cast<size_t>(failure.position)] = b.labels[static_cast<size_t>(from)];
  }
}

}  // namespace lth
