// Kernel locks (flock): a killed process leaves none.
#pragma once
#include <optional>
#include <string>

namespace lth {

class FileLock {
 public:
  // Exclusive and non-blocking; creates the file. Empty where somebody else holds it (another process, or another
  // lock of this one). Error("io") where the file cannot be opened.
  static std::optional<FileLock> try_lock(const std::string& path);

  // Does somebody hold it? Never creates the file.
  static bool held(const std::string& path);

  FileLock(FileLock&& other) noexcept : descriptor_(other.descriptor_) { other.descriptor_ = -1; }
  FileLock& operator=(FileLock&&) = delete;
  ~FileLock();

 private:
  explicit FileLock(int descriptor) : descriptor_(descriptor) {}
  int descriptor_;
};

}  // namespace lth
