#include "core/lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace lth {

std::optional<FileLock> FileLock::try_lock(const std::string& path) {
  if (path.empty() || path.find('\0') != std::string::npos) {
    throw Error("io", "[lock] a path must not be empty nor hold a zero byte");
  }
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor < 0) throw Error("io", "[lock] " + path + ": " + std::strerror(errno));
  FileLock lock(descriptor);
  while (::flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    if (errno == EWOULDBLOCK) return std::nullopt;
    throw Error("io", "[lock] " + path + ": " + std::strerror(errno));
  }
  // The folder may have been moved away meanwhile: then this is the lock of something else, and whoever asks again
  // finds the right one.
  struct stat ours, named;
  if (::fstat(descriptor, &ours) != 0 || ::stat(path.c_str(), &named) != 0 || ours.st_ino != named.st_ino ||
      ours.st_dev != named.st_dev) {
    return std::nullopt;
  }
  return lock;
}

bool FileLock::held(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) {
    if (errno == ENOENT || errno == ENOTDIR) return false;
    throw Error("io", "[lock] " + path + ": " + std::strerror(errno));
  }
  const FileLock probe(descriptor);
  // Shared, so that those who only look do not take each other for an owner.
  while (::flock(descriptor, LOCK_SH | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    if (errno == EWOULDBLOCK) return true;
    throw Error("io", "[lock] " + path + ": " + std::strerror(errno));
  }
  return false;
}

FileLock::~FileLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

}  // namespace lth
