// Labelled pictures, each read when it is wanted: in files of their own, or packed into shards.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/file.h"

namespace lth {

// Files that hold one picture behind another, in the order of the set's rows.
struct PictureShards {
  std::vector<std::string> files;
  std::vector<int64_t> rows;      // of each file
  std::vector<double> begins;     // of each picture in its file, whole numbers
  std::vector<uint32_t> lengths;  // in bytes
};

class PictureSet {
 public:
  // Larger files are refused: no picture of kMostPixels needs more.
  static constexpr uint64_t kMostBytes = uint64_t{256} << 20;

  // `names` below the folder `root`, each with a zero byte behind it, as many as labels; else Error("invalid-argument").
  PictureSet(std::string root, std::string names, std::vector<int32_t> labels, int classes, std::string digest);
  // `names` as above, for people alone. The files stay open. Error("io"); Error("corrupt-file") where a picture would not lie
  // in its file.
  PictureSet(PictureShards shards, std::string names, std::vector<int32_t> labels, int classes, std::string digest);

  int64_t count() const { return static_cast<int64_t>(labels_.size()); }
  int classes() const { return classes_; }
  const std::string& digest() const { return digest_; }
  int32_t label(int64_t row) const { return labels_[static_cast<size_t>(row)]; }
  // As the set has it, below its folder.
  const char* name(int64_t row) const { return names_.data() + begins_[static_cast<size_t>(row)]; }
  // Where it lies, for people: of a packed one the shard, a colon and the name.
  std::string path(int64_t row) const;
  size_t memory() const {
    return names_.size() + labels_.size() * (sizeof(int32_t) + sizeof(uint64_t)) +
           shards_.begins.size() * (sizeof(double) + sizeof(uint32_t));
  }

  // The bytes of an example's file, at the beginning of `memory`, which grows as needed. Error("io"), Error("corrupt-file").
  std::span<const std::byte> read(int64_t row, std::vector<std::byte>& memory) const;

 private:
  size_t shard_of(int64_t row) const;

  std::string root_, names_;
  std::vector<uint64_t> begins_;  // of each name
  std::vector<int32_t> labels_;
  int classes_;
  std::string digest_;
  PictureShards shards_;          // none: files of their own
  std::vector<std::unique_ptr<InputFile>> files_;
  std::vector<int64_t> ends_;     // rows in all shards up to each one
};

}  // namespace lth
