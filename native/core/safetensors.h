// The safetensors format: 8 bytes little-endian header length, a JSON header, the tensors' bytes one after the other.
#pragma once
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "core/file.h"

namespace lth {

using Metadata = std::map<std::string, std::string>;

struct TensorOut {
  std::string name;
  std::string dtype;  // "F32", "F64", "BOOL", "I64"
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
};

// Written whole or not at all; tensors in the order given, metadata sorted by key: the same input gives the same bytes.
void write_safetensors(const std::string& path, const std::vector<TensorOut>& tensors, const Metadata& metadata);

struct TensorIn {
  std::string dtype;
  std::vector<int64_t> shape;
  uint64_t first = 0, bytes = 0;  // where in the file
};

// A file that was opened and whose header was checked against the file's size: nothing outside it is ever read, and
// nothing is allocated on the word of a header alone. Error("corrupt-file") names the file and the place.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path);

  const std::map<std::string, TensorIn>& tensors() const { return tensors_; }
  const Metadata& metadata() const { return metadata_; }
  const std::string& path() const { return path_; }
  // `to` must have the tensor's size.
  void read(const TensorIn& tensor, std::span<std::byte> to) const { file_.read(tensor.first, to); }

 private:
  std::string path_;
  InputFile file_;
  std::map<std::string, TensorIn> tensors_;
  Metadata metadata_;
};

// The header alone, for tests and fuzzing: `body` is the number of bytes that follow it.
void parse_safetensors_header(std::string_view json, uint64_t body, std::map<std::string, TensorIn>& tensors,
                              Metadata& metadata);

}  // namespace lth
