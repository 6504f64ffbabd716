// Pictures in files of their own become a shard: decoded, made smaller, encoded as JPEG, by several threads.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "data/picture_set.h"

namespace lth {

struct PackOptions {
  int64_t short_side = 0;  // of a picture at most; 0: the files' own bytes are kept
  int quality = 90;
  int threads = 1;
};

struct ShardOptions {
  std::string path;
  std::vector<std::pair<std::string, std::string>> metadata;
  int64_t from = 0;   // the row of the set that it begins with
  int64_t bytes = 0;  // of its pictures at most, but there is one at least
};

// A picture that cannot be decoded keeps its row and its own bytes: whoever reads the shard is told of it, as a reader of the
// folder is, and puts another one in its place. Of a file that PictureSet refuses to read for its size the row is empty: nobody
// takes memory for it, and a shard that held it could not be opened.
struct UnpackedPicture {
  int64_t row = 0;
  std::string why;
  bool kept = true;  // its bytes
};

struct PackedShard {
  int64_t pictures = 0, bytes = 0;  // of the file
  int64_t warnings = 0;             // pictures that decoders found something wrong with
  std::vector<UnpackedPicture> broken;
};

// Makes one shard after another of a set; the threads live as long, and make pictures of the next shard ahead. For one thread
// at a time, but for `stop`.
class ShardPacker {
 public:
  // Error("unsupported") where the addon was built without the libraries, Error("io") where a thread cannot be started.
  ShardPacker(std::shared_ptr<const PictureSet> set, const PackOptions& options);
  ~ShardPacker();

  // The shard's bytes are a function of the files and the options but `threads`. Nothing where it was stopped, and then no file
  // either. `done` counts pictures meanwhile. Error("io") where a picture's file cannot be read, which says nothing of the
  // picture, or the shard not be written. Where it does not begin behind the one before it, pictures that were made ahead are
  // thrown away.
  std::optional<PackedShard> pack(const ShardOptions& shard, const std::function<bool()>& stopping, std::atomic<int64_t>& done);
  // Ends the threads, after the picture that each is at; and what is being packed, as if it was stopped. From any thread.
  void stop();

 private:
  class Makers;
  std::unique_ptr<Makers> makers_;
};

}  // namespace lth
