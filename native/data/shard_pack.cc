#include "data/shard_pack.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <map>
#include <mutex>
#include <system_error>
#include <thread>

#include "core/error.h"
#include "data/resize.h"
#include "data/shard_file.h"
#include "jpeg/pictures.h"

namespace lth {
namespace {

struct Packed {
  std::vector<std::byte> bytes;
  std::string why;  // it could not be decoded
  bool kept = false;  // these are the file's own bytes, or made of them
  std::exception_ptr error;  // what is not the fault of the picture
  bool warned = false;
};

// What one thread needs to make pictures.
class Maker {
 public:
  explicit Maker(const PackOptions& options) : options_(options) {}

  Packed make(const PictureSet& set, int64_t row) {
    Packed packed;
    try {
      packed.bytes.resize(set.read(row, packed.bytes).size());
      packed.kept = true;
      std::vector<std::byte> smaller = encode(packed.bytes, set.path(row));
      if (options_.short_side > 0) packed.bytes = std::move(smaller);
      packed.warned = reader_.warnings() > 0;
    } catch (const Error& error) {
      if (error.code() == "io") throw;
      packed.why = error.what();
    }
    return packed;
  }

 private:
  std::vector<std::byte> encode(std::span<const std::byte> file, const std::string& name) {
    reader_.open(file, name);
    const int64_t height = reader_.height(), width = reader_.width(), side = std::min(height, width);
    const bool grey = reader_.grey();
    const int orientation = reader_.orientation();  // of a header that `read` drops
    Patch picture = reader_.read({.height = height, .width = width}, 1);
    if (options_.short_side == 0) return {};
    if (side > options_.short_side) {
      const auto scaled = [&](int64_t length) { return (2 * length * options_.short_side + side) / (2 * side); };
      const int64_t h = scaled(height), w = scaled(width);
      if (smaller_.size() > PictureReader::kMostKept) std::vector<uint8_t>().swap(smaller_);
      smaller_.resize(std::max(smaller_.size(), static_cast<size_t>(h * w * 3)));
      resizer_.resize(picture, {.height = static_cast<double>(height), .width = static_cast<double>(width)}, Filter::kBicubic,
                      h, w, {.base = smaller_.data(), .row = 3 * w, .column = 3, .channel = 1});
      picture = {.pixels = smaller_.data(), .stride = 3 * w, .height = h, .width = w};
    }
    const auto bytes = encoder_.encode(picture, grey, options_.quality, orientation, name);
    return {bytes.begin(), bytes.end()};
  }

  const PackOptions& options_;
  PictureReader reader_;
  JpegEncoder encoder_;
  Resizer resizer_;
  std::vector<uint8_t> smaller_;
};

}  // namespace

// Threads that make pictures in any order; they are taken in the order of their rows.
class ShardPacker::Makers {
 public:
  Makers(std::shared_ptr<const PictureSet> set, const PackOptions& options) : set_(std::move(set)), options_(options) {
    const Maker works(options_);  // else it is said now
    try {
      for (int i = 0; i < options_.threads; ++i) threads_.emplace_back([this] { work(); });
    } catch (const std::system_error& error) {
      stop();
      throw Error("io", "[pack] cannot start thread " + std::to_string(threads_.size() + 1) + " of " +
                            std::to_string(options_.threads) + ": " + error.what());
    } catch (...) {
      stop();
      throw;
    }
  }
  ~Makers() { stop(); }

  const PictureSet& set() const { return *set_; }

  // The next picture that is asked for is that of `row`.
  void begin(int64_t row) {
    std::lock_guard lock(mutex_);
    if (row == first_) return;
    made_.clear();
    bytes_ = 0;
    first_ = next_ = row;
    ++begun_;
    room_.notify_all();
  }
  // The picture of the first row that was not dropped, there until it is; null where it was stopped.
  const Packed* first(const std::function<bool()>& stopping) {
    constexpr std::chrono::milliseconds kLook{20};  // at whether it should stop
    while (!stopping()) {
      std::unique_lock lock(mutex_);
      if (!changed_.wait_for(lock, kLook, [&] { return stop_ || made_.contains(first_); })) continue;
      if (stop_) break;
      const Packed& packed = made_.at(first_);
      // Told where its row comes, not where a thread found it: the shard before may be whole.
      if (packed.error) std::rethrow_exception(packed.error);
      return &packed;
    }
    return nullptr;
  }
  void drop_first() {
    std::lock_guard lock(mutex_);
    bytes_ -= made_.extract(first_++).mapped().bytes.size();
    room_.notify_all();
  }

  void stop() {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
    }
    room_.notify_all();
    changed_.notify_all();
    std::lock_guard lock(joining_);
    for (std::thread& thread : threads_) {
      if (thread.joinable()) thread.join();
    }
  }

 private:
  // What waits to be taken is at most so many pictures for each thread, and but for one for each thread so many bytes.
  static constexpr int64_t kAhead = 8;
  static constexpr size_t kMostBytes = size_t{64} << 20;

  void work() {
    Maker maker(options_);
    std::unique_lock lock(mutex_);
    for (;;) {
      room_.wait(lock, [&] {
        return stop_ || (next_ < set_->count() && next_ - first_ < kAhead * options_.threads &&
                         (bytes_ < kMostBytes || next_ == first_));
      });
      if (stop_) return;
      const int64_t row = next_++, begun = begun_;
      lock.unlock();
      Packed packed;
      try {
        packed = maker.make(*set_, row);
      } catch (...) {
        packed.error = std::current_exception();
      }
      lock.lock();
      if (begun != begun_) continue;
      if (packed.error) next_ = set_->count();  // nothing behind it will be wanted
      bytes_ += packed.bytes.size();
      made_.emplace(row, std::move(packed));
      changed_.notify_all();
    }
  }

  const std::shared_ptr<const PictureSet> set_;
  const PackOptions options_;
  std::mutex mutex_, joining_;
  std::condition_variable room_, changed_;
  std::map<int64_t, Packed> made_;
  int64_t next_ = INT64_MAX, first_ = -1;  // row that nobody has begun, row that was not dropped: none until `begin`
  int64_t begun_ = 0;                      // how often rows began anew
  size_t bytes_ = 0;                       // of `made_`
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

ShardPacker::ShardPacker(std::shared_ptr<const PictureSet> set, const PackOptions& options) {
  if (options.short_side < 0 || options.quality < 1 || options.quality > 100 || options.threads < 1 || options.threads > 1024) {
    throw Error("invalid-argument", "[pack] expected 1 to 1024 threads, a quality of 1 to 100");
  }
  makers_ = std::make_unique<Makers>(std::move(set), options);
}
ShardPacker::~ShardPacker() = default;
void ShardPacker::stop() { makers_->stop(); }

std::optional<PackedShard> ShardPacker::pack(const ShardOptions& options, const std::function<bool()>& stopping,
                                             std::atomic<int64_t>& done) {
  const PictureSet& set = makers_->set();
  if (options.from < 0 || options.from >= set.count() || options.bytes < 1) {
    throw Error("invalid-argument", "[pack] expected a first row of the set");
  }
  PackedShard shard;
  ShardFile file(options.path, options.metadata);
  makers_->begin(options.from);
  int64_t bytes = 0;
  for (int64_t row = options.from; row < set.count(); ++row) {
    const Packed* const packed = makers_->first(stopping);
    if (!packed) return std::nullopt;
    bytes += static_cast<int64_t>(packed->bytes.size());
    if (shard.pictures > 0 && bytes > options.bytes) break;
    file.add(packed->bytes, set.label(row), set.name(row));
    ++shard.pictures;
    shard.warnings += packed->warned;
    if (!packed->why.empty()) shard.broken.push_back({row, packed->why, packed->kept});
    makers_->drop_first();
    ++done;
  }
  shard.bytes = static_cast<int64_t>(file.finish());
  return shard;
}

}  // namespace lth
