// Batches of pictures, made by threads of their own while a network trains on those before.
#pragma once
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "data/batch_memory.h"
#include "data/picture_input.h"
#include "data/picture_set.h"

namespace lth {

struct LoaderOptions {
  CropRule crop;
  bool channels_last = false;  // (N,S,S,3) instead of (N,3,S,S)
  bool upright = false;        // apply EXIF's orientation
  int threads = 1;
  int ahead = 3;  // batches that are made or wait at most
  const MemorySource* memory = nullptr;  // of batches; null: the system's
};

struct PictureRequest {
  int64_t step = 0;           // the batch's name
  std::vector<int32_t> rows;  // of the set, at least one
  CropKey key{};              // of all of them; `example` is each one's row
};

// An example that could not be read: another one of the batch stands in its place.
struct PictureFailure {
  int64_t position = 0;  // in the batch
  int32_t row = 0, taken = 0;
  std::string why;
};

struct PictureBatch {
  int64_t step = 0;
  int64_t features = 0;                // bytes of an example, 3 S S
  BatchMemory::Bytes images;           // (N,3,S,S) or (N,S,S,3); used again once the batch is gone
  std::vector<int32_t> labels, rows;   // of what is there: the row of an example that stands in for another
  std::vector<PictureFailure> failures;  // by position
  int64_t warnings = 0;                // pictures that decoders found something wrong with

  int64_t count() const { return static_cast<int64_t>(rows.size()); }
  int64_t bytes() const { return count() * features; }
};

// Batches come in the order of their requests, and their bytes are a function of the request: of neither threads nor time.
// An example that cannot be read is replaced by the next one of its batch that can, the first coming after the last.
// Memory: `ahead` batches, and as many more of those that were taken and given back; and for each thread a file and what is
// decoded of it (a JPEG: what the crop needs, up to four times its side, a progressive one all of its coefficients too; a PNG:
// the whole picture; of kMostPixels at most), of which PictureReader::kMostKept stay.
class PictureLoader {
 public:
  // Starts the threads. Error("invalid-argument"), Error("io") where the system gives none, Error("unsupported").
  PictureLoader(std::shared_ptr<const PictureSet> set, LoaderOptions options);
  ~PictureLoader() { stop(); }
  PictureLoader(const PictureLoader&) = delete;
  PictureLoader& operator=(const PictureLoader&) = delete;

  const LoaderOptions& options() const { return options_; }
  // From any thread, all of them.
  bool full() const;
  // Error("busy") where full.
  void request(PictureRequest request);
  // The oldest batch asked for, once it is made. Error("corrupt-file") where none of its pictures can be read,
  // Error("disposed") where the loader is or was stopped meanwhile.
  std::shared_ptr<const PictureBatch> take();
  // Null where it is not made yet.
  std::shared_ptr<const PictureBatch> try_take();
  bool ready() const;
  // Until a batch is made or taken, or the time is over.
  void wait(std::chrono::milliseconds most);
  // Forgets what was asked for.
  void clear();
  // Stops and joins the threads, each after the picture that it is at. Idempotent.
  void stop();

 private:
  struct Job;
  void work();
  void make(Job& job, int64_t position, PictureInput& input, std::vector<std::byte>& file);
  std::shared_ptr<const PictureBatch> hand_out();

  std::shared_ptr<const PictureSet> set_;
  LoaderOptions options_;
  const Isa isa_ = chosen_isa();
  const std::shared_ptr<BatchMemory> memory_;
  mutable std::mutex mutex_;
  std::condition_variable work_, changed_;
  std::deque<std::shared_ptr<Job>> jobs_;  // by age
  uint64_t changes_ = 0;
  bool stop_ = false;
  std::mutex join_;
  std::vector<std::thread> threads_;
};

}  // namespace lth
