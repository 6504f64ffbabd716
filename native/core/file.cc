#include "core/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "core/error.h"

namespace lth {
namespace {

[[noreturn]] void fail(const char* operation, const std::string& path, int error) {
  throw Error("io", std::string("[") + operation + "] " + path + ": " + std::strerror(error));
}

void write_all(int descriptor, std::span<const std::byte> bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(descriptor, bytes.data(), bytes.size());
    if (n < 0) {
      if (errno == EINTR) continue;
      fail("write", path, errno);
    }
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
}

struct Descriptor {
  int value;
  ~Descriptor() {
    if (value >= 0) ::close(value);
  }
};

void sync_folder(const std::string& path) {
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  const Descriptor folder{::open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  // Some file systems cannot sync a folder (EINVAL); the rename itself has happened.
  if (folder.value >= 0 && ::fsync(folder.value) != 0 && errno != EINVAL) fail("sync", path, errno);
}

}  // namespace

void write_atomically(const std::string& path, const std::vector<std::span<const std::byte>>& parts) {
  static std::atomic<uint64_t> counter{0};
  const std::string temporary = path + "." + std::to_string(::getpid()) + "." + std::to_string(counter++) + ".tmp";
  struct Remove {
    const std::string& name;
    bool armed = true;
    ~Remove() {
      if (armed) ::unlink(name.c_str());
    }
  } remove{temporary};
  {
    Descriptor file{::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666)};
    if (file.value < 0) {
      remove.armed = false;
      fail("write", path, errno);
    }
    for (const auto& part : parts) write_all(file.value, part, path);
    if (::fsync(file.value) != 0) fail("sync", path, errno);
    const int descriptor = file.value;
    file.value = -1;
    if (::close(descriptor) != 0) fail("close", path, errno);
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) fail("rename", path, errno);
  remove.armed = false;
  sync_folder(path);
}

InputFile::InputFile(const std::string& path) : path_(path), descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
  if (descriptor_ < 0) fail("open", path, errno);
  struct stat info;
  if (::fstat(descriptor_, &info) != 0 || !S_ISREG(info.st_mode)) {
    const int error = S_ISDIR(info.st_mode) ? EISDIR : EINVAL;
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

}  // namespace lth
