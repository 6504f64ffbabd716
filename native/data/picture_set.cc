#include "data/picture_set.h"

#include "core/error.h"
#include "core/file.h"

namespace lth {

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

std::string PictureSet::path(int64_t row) const {
  return root_ + "/" + (names_.data() + begins_[static_cast<size_t>(row)]);
}

std::span<const std::byte> PictureSet::read(int64_t row, std::vector<std::byte>& memory) const {
  const std::string name = path(row);
  const InputFile file(name);
  if (file.size() > kMostBytes) {
    throw Error("corrupt-file", "[picture] " + name + ": has " + std::to_string(file.size()) + " bytes, expected at most " +
                                    std::to_string(kMostBytes));
  }
  if (memory.size() < file.size()) {
    memory.clear();  // so that nothing is copied
    memory.resize(file.size());
  }
  const auto bytes = std::span(memory).first(file.size());
  file.read(0, bytes);
  return bytes;
}

}  // namespace lth
