// Labelled pictures in files, each read when it is wanted.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace lth {

class PictureSet {
 public:
  // Larger files are refused: no picture of kMostPixels needs more.
  static constexpr uint64_t kMostBytes = uint64_t{256} << 20;

  // `names` below the folder `root`, each with a zero byte behind it, as many as labels; else Error("invalid-argument").
  PictureSet(std::string root, std::string names, std::vector<int32_t> labels, int classes, std::string digest);

  int64_t count() const { return static_cast<int64_t>(labels_.size()); }
  int classes() const { return classes_; }
  const std::string& digest() const { return digest_; }
  int32_t label(int64_t row) const { return labels_[static_cast<size_t>(row)]; }
  std::string path(int64_t row) const;
  size_t memory() const { return names_.size() + labels_.size() * (sizeof(int32_t) + sizeof(uint64_t)); }

  // The bytes of an example's file, at the beginning of `memory`, which grows as needed. Error("io"), Error("corrupt-file").
  std::span<const std::byte> read(int64_t row, std::vector<std::byte>& memory) const;

 private:
  std::string root_, names_;
  std::vector<uint64_t> begins_;  // of each name
  std::vector<int32_t> labels_;
  int classes_;
  std::string digest_;
};

}  // namespace lth
