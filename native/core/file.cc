#include "core/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "core/error.h"

namespace lth {
namespace {

[[noreturn]] void fail(const char* operation, const std::string& path, int error) {
  throw Error("io", std::string("[") + operation + "] " + path + ": " + std::strerror(error));
}

void write_all(int descriptor, std::span<const std::byte> bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(descriptor, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail("write", path, n < 0 ? errno : ENOSPC);
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
}

// What the disk holds is what was written: asked of the disk, for the pages just written are given up first.
void check_written(int descriptor, const std::vector<std::span<const std::byte>>& parts, const std::string& path) {
  ::posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED);
  std::vector<std::byte> buffer(1 << 20);
  uint64_t at = 0;
  for (std::span<const std::byte> part : parts) {
    while (!part.empty()) {
      const size_t most = std::min(part.size(), buffer.size());
      const ssize_t n = ::pread(descriptor, buffer.data(), most, static_cast<off_t>(at));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail("read back", path, errno);
      if (n == 0 || std::memcmp(buffer.data(), part.data(), static_cast<size_t>(n)) != 0) {
        throw Error("io", "[write] " + path + ": the disk does not hold what was written to it, near byte " + std::to_string(at));
      }
      part = part.subspan(static_cast<size_t>(n));
      at += static_cast<uint64_t>(n);
    }
  }
}

// The system would silently take the part before a zero byte for the path.
void check_path(const std::string& path) {
  if (path.empty() || path.find('\0') != std::string::npos) {
    throw Error("io", "[file] a path must not be empty nor hold a zero byte");
  }
}

struct Descriptor {
  int value;
  ~Descriptor() {
    if (value >= 0) ::close(value);
  }
};

// A name of this process's own. One that exists was left by a killed process which had the same id (in a container
// they begin anew), or belongs to another machine of a shared folder: never taken over.
int create_temporary(const std::string& path, std::string& name) {
  static std::atomic<uint64_t> counter{0};
  for (int attempt = 0; attempt < 1000; ++attempt) {
    name = path + "." + std::to_string(::getpid()) + "." + std::to_string(counter++) + ".tmp";
    const int descriptor = ::open(name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor >= 0 || errno != EEXIST) return descriptor;
  }
  return -1;
}

// Of bytes that a disk may have lost or swapped, not of an adversary's.
uint64_t sum_of(std::span<const std::byte> bytes) {
  uint64_t sum = 0x9e3779b97f4a7c15 ^ bytes.size(), word = 0;
  const auto mix = [&] {
    sum = (sum ^ word) * 0xff51afd7ed558ccd;
    sum ^= sum >> 32;
  };
  size_t at = 0;
  for (; at + sizeof word <= bytes.size(); at += sizeof word) {
    std::memcpy(&word, bytes.data() + at, sizeof word);
    mix();
  }
  word = 0;
  if (at < bytes.size()) std::memcpy(&word, bytes.data() + at, bytes.size() - at);
  mix();
  return sum;
}

void sync_folder(const std::string& path) {
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  const Descriptor folder{::open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  // A folder may be written to by those who must not list it: they cannot sync it either.
  if (folder.value < 0 && errno != EACCES) fail("sync", path, errno);
  // Some file systems cannot sync a folder (EINVAL); the rename itself has happened.
  if (folder.value >= 0 && ::fsync(folder.value) != 0 && errno != EINVAL) fail("sync", path, errno);
}

}  // namespace

void write_atomically(const std::string& path, const std::vector<std::span<const std::byte>>& parts) {
  check_path(path);
  struct Remove {
    std::string name;
    bool armed = false;
    ~Remove() {
      if (armed) ::unlink(name.c_str());
    }
  } remove;
  {
    Descriptor file{create_temporary(path, remove.name)};
    if (file.value < 0) fail("write", path, errno);
    remove.armed = true;
    for (const auto& part : parts) write_all(file.value, part, path);
    if (::fsync(file.value) != 0) fail("sync", path, errno);
    check_written(file.value, parts, path);
    const int descriptor = file.value;
    file.value = -1;
    // Interrupted or not, the descriptor is gone, and the data was synced before.
    if (::close(descriptor) != 0 && errno != EINTR) fail("close", path, errno);
  }
  if (::rename(remove.name.c_str(), path.c_str()) != 0) fail("rename", path, errno);
  remove.armed = false;
  sync_folder(path);
}

OutputFile::OutputFile(const std::string& path) : path_(path) {
  check_path(path);
  descriptor_ = create_temporary(path, temporary_);
  if (descriptor_ < 0) fail("write", path, errno);
}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void OutputFile::write(std::span<const std::byte> bytes) {
  constexpr size_t kPart = size_t{1} << 20;
  while (!bytes.empty()) {
    const auto part = bytes.first(std::min(bytes.size(), kPart));
    write_all(descriptor_, part, path_);
    written_.push_back({part.size(), sum_of(part)});
    size_ += part.size();
    bytes = bytes.subspan(part.size());
  }
}

void OutputFile::check() const {
  ::posix_fadvise(descriptor_, 0, 0, POSIX_FADV_DONTNEED);
  const auto refuse = [this](uint64_t near) {
    throw Error("io", "[write] " + path_ + ": the disk does not hold what was written to it, near byte " + std::to_string(near));
  };
  std::vector<std::byte> buffer;
  uint64_t at = 0;
  for (const Written& part : written_) {
    buffer.resize(part.bytes);
    for (size_t got = 0; got < part.bytes;) {
      const ssize_t n = ::pread(descriptor_, buffer.data() + got, part.bytes - got, static_cast<off_t>(at + got));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail("read back", path_, errno);
      if (n == 0) refuse(at + got);
      got += static_cast<size_t>(n);
    }
    if (sum_of(buffer) != part.sum) refuse(at);
    at += part.bytes;
  }
}

void OutputFile::finish() {
  if (::fsync(descriptor_) != 0) fail("sync", path_, errno);
  check();
  const int descriptor = std::exchange(descriptor_, -1);
  if (::close(descriptor) != 0 && errno != EINTR) fail("close", path_, errno);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("rename", path_, errno);
  temporary_.clear();
  sync_folder(path_);
}

// Non-blocking: opening a pipe would wait for its writer.
InputFile::InputFile(const std::string& path) : path_(path) {
  check_path(path);
  descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor_ < 0) fail("open", path, errno);
  struct stat info;
  int error = ::fstat(descriptor_, &info) == 0 ? 0 : errno;
  if (error == 0 && !S_ISREG(info.st_mode)) error = S_ISDIR(info.st_mode) ? EISDIR : EINVAL;
  if (error != 0) {
    ::close(descriptor_);
    fail("open", path, error);
  }
  size_ = static_cast<uint64_t>(info.st_size);
}

InputFile::~InputFile() { ::close(descriptor_); }

void InputFile::read(uint64_t at, std::span<std::byte> to) const {
  while (!to.empty()) {
    const ssize_t n = ::pread(descriptor_, to.data(), to.size(), static_cast<off_t>(at));
    if (n < 0) {
      if (errno == EINTR) continue;
      fail("read", path_, errno);
    }
    if (n == 0) {
      throw Error("corrupt-file", "[read] " + path_ + ": ends at byte " + std::to_string(at) + ", " +
                                      std::to_string(to.size()) + " bytes early");
    }
    to = to.subspan(static_cast<size_t>(n));
    at += static_cast<uint64_t>(n);
  }
}

std::vector<std::byte> read_file(const std::string& path, uint64_t limit) {
  const InputFile file(path);
  if (file.size() > limit) {
    throw Error("corrupt-file", "[read] " + path + ": has " + std::to_string(file.size()) + " bytes, expected at most " +
                                    std::to_string(limit));
  }
  std::vector<std::byte> bytes(file.size());
  file.read(0, bytes);
  return bytes;
}

}  // namespace lth
