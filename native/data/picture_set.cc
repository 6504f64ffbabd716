#include "data/picture_set.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/error.h"

namespace lth {
namespace {

// The first `size` bytes of a memory that only grows: what is read there is neither cleared nor copied before.
std::span<std::byte> room(std::vector<std::byte>& memory, uint64_t size) {
  if (memory.size() < size) {
    memory.clear();  // so that nothing is copied
    memory.resize(size);
  }
  return std::span(memory).first(size);
}

// In digits where it is a whole number.
std::string place_of(double begin) {
  return std::fabs(begin) < 0x1p53 && begin == std::floor(begin) ? std::to_string(static_cast<int64_t>(begin)) : std::to_string(begin);
}

}  // namespace

PictureSet::PictureSet(std::string root, std::string names, std::vector<int32_t> labels, int classes, std::string digest)
    : root_(std::move(root)),
      names_(std::move(names)),
      labels_(std::move(labels)),
      classes_(classes),
      digest_(std::move(digest)) {
  for (size_t at = 0; at < names_.size();) {
    begins_.push_back(at);
    const size_t end = names_.find('\0', at);
    if (end == std::string::npos) throw Error("invalid-argument", "[pictures] the last name has no zero byte behind it");
    at = end + 1;
  }
  if (begins_.size() != labels_.size()) {
    throw Error("invalid-argument", "[pictures] " + std::to_string(begins_.size()) + " names, " +
                                        std::to_string(labels_.size()) + " labels");
  }
  for (size_t i = 0; i < labels_.size(); ++i) {
    if (labels_[i] < 0 || labels_[i] >= classes_) {
      throw Error("invalid-argument", "[pictures] label " + std::to_string(i) + " is " + std::to_string(labels_[i]) +
                                          ", expected 0 to " + std::to_string(classes_ - 1));
    }
  }
}

PictureSet::PictureSet(PictureShards shards, std::string names, std::vector<int32_t> labels, int classes, std::string digest)
    : PictureSet(std::string(), std::move(names), std::move(labels), classes, std::move(digest)) {
  shards_ = std::move(shards);
  const size_t n = labels_.size();
  if (shards_.files.size() != shards_.rows.size() || shards_.begins.size() != n || shards_.lengths.size() != n) {
    throw Error("invalid-argument", "[pictures] " + std::to_string(shards_.begins.size()) + " places and " +
                                        std::to_string(shards_.lengths.size()) + " lengths of " + std::to_string(n) + " pictures");
  }
  int64_t row = 0;
  for (size_t i = 0; i < shards_.files.size(); ++i) {
    const std::string& file = shards_.files[i];
    if (shards_.rows[i] < 0 || shards_.rows[i] > count() - row) {
      throw Error("invalid-argument", "[pictures] " + file + ": " + std::to_string(shards_.rows[i]) + " rows");
    }
    files_.push_back(std::make_unique<InputFile>(file));
    const auto size = static_cast<double>(files_.back()->size());
    for (const int64_t end = row + shards_.rows[i]; row < end; ++row) {
      const double begin = shards_.begins[static_cast<size_t>(row)];
      const uint32_t length = shards_.lengths[static_cast<size_t>(row)];
      if (!(begin >= 0 && begin + length <= size) || length > kMostBytes) {
        throw Error("corrupt-file", "[pictures] " + file + ": bytes of " + name(row) + " are to be " + std::to_string(length) +
                                        " from " + place_of(begin) + " on, the file has " +
                                        std::to_string(files_.back()->size()));
      }
    }
    ends_.push_back(row);
  }
  if (row != count()) {
    throw Error("invalid-argument",
                "[pictures] " + std::to_string(row) + " rows in shards, " + std::to_string(count()) + " labels");
  }
}

size_t PictureSet::shard_of(int64_t row) const {
  return static_cast<size_t>(std::upper_bound(ends_.begin(), ends_.end(), row) - ends_.begin());
}

std::string PictureSet::path(int64_t row) const {
  return files_.empty() ? root_ + "/" + name(row) : shards_.files[shard_of(row)] + ": " + name(row);
}

std::span<const std::byte> PictureSet::read(int64_t row, std::vector<std::byte>& memory) const {
  if (!files_.empty()) {
    const auto bytes = room(memory, shards_.lengths[static_cast<size_t>(row)]);
    try {
      files_[shard_of(row)]->read(static_cast<uint64_t>(shards_.begins[static_cast<size_t>(row)]), bytes);
    } catch (const Error& error) {
      throw Error("io", error.what());  // one that has become shorter, too: the shard is damaged, not this picture
    }
    return bytes;
  }
  const std::string where = path(row);
  const InputFile file(where);
  if (file.size() > kMostBytes) {
    throw Error("corrupt-file", "[picture] " + where + ": has " + std::to_string(file.size()) + " bytes, expected at most " +
                                    std::to_string(kMostBytes));
  }
  const auto bytes = room(memory, file.size());
  file.read(0, bytes);
  return bytes;
}

}  // namespace lth
