// A shard of pictures: an Arrow IPC file with columns image (binary), label (int32) and name (utf8), in batches of a few
// megabytes, uncompressed and without nulls, so that each picture is a range of the file.
// https://arrow.apache.org/docs/format/Columnar.html#ipc-file-format
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/file.h"

namespace lth {

class ShardFile {
 public:
  // `metadata` goes into the schema. Errors are those of OutputFile.
  ShardFile(const std::string& path, const std::vector<std::pair<std::string, std::string>>& metadata);

  void add(std::span<const std::byte> image, int32_t label, std::string_view name);
  // The file is there. Its bytes.
  uint64_t finish();

 private:
  // Rows in memory until they are a batch: it has no more of them, and ends with the picture that makes it so large.
  static constexpr size_t kMostRows = 1024, kMostBytes = size_t{16} << 20;
  struct Block {
    uint64_t at;
    int32_t head;
    uint64_t body;
  };
  void flush();

  OutputFile file_;
  std::vector<std::pair<std::string, std::string>> metadata_;
  std::vector<Block> blocks_;
  std::vector<std::byte> images_;
  std::string names_;
  std::vector<int32_t> image_ends_, name_ends_, labels_;  // the first two begin with 0
};

}  // namespace lth
