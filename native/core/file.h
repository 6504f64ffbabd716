// Files that are either whole or not there (design: contract 8).
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace lth {

// Writes under a temporary name in the same folder, syncs, reads back, renames, syncs the folder. On failure the temporary is
// removed, what was there before stays, and Error("io") names the path and the reason.
void write_atomically(const std::string& path, const std::vector<std::span<const std::byte>>& parts);

// A file that is written part by part and is either whole or not there, as above: a temporary beside it until `finish`.
class OutputFile {
 public:
  explicit OutputFile(const std::string& path);  // Error("io"), as all that follows
  ~OutputFile();                                 // without `finish`, the temporary is removed
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::span<const std::byte> bytes);
  uint64_t size() const { return size_; }
  // Syncs, reads back by checksums (there may be more of it than memory), renames, syncs the folder.
  void finish();

 private:
  struct Written {
    size_t bytes;
    uint64_t sum;
  };
  void check() const;

  std::string path_, temporary_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
  std::vector<Written> written_;
};

// A file opened for reading; reads are pread, so that a file which shrinks meanwhile is an error and no crash.
class InputFile {
 public:
  explicit InputFile(const std::string& path);  // Error("io")
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  uint64_t size() const { return size_; }
  // Fills `to` from byte `at`; Error("corrupt-file") where the file ends before.
  void read(uint64_t at, std::span<std::byte> to) const;

 private:
  std::string path_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
};

// The whole file; Error("corrupt-file") where it is longer than `limit` bytes.
std::vector<std::byte> read_file(const std::string& path, uint64_t limit);

}  // namespace lth
