// Files of a fuzz target, in memory: a million inputs would wear out a disk.
#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "core/file.h"
#include "fuzz/target.h"

// A file without a name, rewritten for each input and opened by its path in /proc.
class InputInMemory {
 public:
  const std::string& path() const { return path_; }
  void set(const Bytes& bytes) {
    if (::ftruncate(descriptor_, 0) != 0 ||
        ::pwrite(descriptor_, bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
      std::perror("fuzz: scratch file");
      std::exit(1);
    }
  }

 private:
  int descriptor_ = ::memfd_create("lth-fuzz", MFD_CLOEXEC);
  std::string path_ = "/proc/self/fd/" + std::to_string(descriptor_);
};

// A path for what the target itself writes: writing needs a folder, because it renames.
class OutputInMemory {
 public:
  OutputInMemory() {
    namespace fs = std::filesystem;
    const fs::path folder = fs::is_directory("/dev/shm") ? "/dev/shm" : fs::temp_directory_path();
    path_ = (folder / ("lth-fuzz-" + std::to_string(::getpid()))).string();
  }
  ~OutputInMemory() { ::unlink(path_.c_str()); }
  OutputInMemory(const OutputInMemory&) = delete;
  OutputInMemory& operator=(const OutputInMemory&) = delete;

  const std::string& path() const { return path_; }
  Bytes contents() const {
    const auto bytes = lth::read_file(path_, 1 << 20);
    const auto* first = reinterpret_cast<const uint8_t*>(bytes.data());
    return {first, first + bytes.size()};
  }

 private:
  std::string path_;
};
