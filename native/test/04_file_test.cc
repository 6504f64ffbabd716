// Files that are whole or not there, and locks of the kernel.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <fstream>

#include "check.h"
#include "core/file.h"
#include "core/lock.h"

using namespace lth;
using test::Folder;

namespace {

std::span<const std::byte> bytes(const std::string& text) { return std::as_bytes(std::span(text)); }
std::string text_of(const std::string& path) {
  const auto read = read_file(path, 1 << 20);
  return {reinterpret_cast<const char*>(read.data()), read.size()};
}

}  // namespace

TEST("a list of spans becomes one file, and nothing else is left in the folder") {
  const Folder folder;
  const std::string a = "one ", b, c = "two";
  write_atomically(folder / "f", {bytes(a), bytes(b), bytes(c)});
  CHECK_EQUAL(text_of(folder / "f"), "one two");
  write_atomically(folder / "f", {bytes(c)});
  CHECK_EQUAL(text_of(folder / "f"), "two");
  write_atomically(folder / "empty", {});
  CHECK_EQUAL(text_of(folder / "empty"), "");
  CHECK_EQUAL(folder.files(), 2);
}

TEST("a file that is written part by part is there at its end, and not before") {
  const Folder folder;
  const std::string large(3 << 20, 'x'), small = "end";
  {
    OutputFile file(folder / "f");
    file.write(bytes(large));
    file.write({});
    file.write(bytes(small));
    CHECK_EQUAL(file.size(), large.size() + small.size());
    CHECK(!std::filesystem::exists(folder / "f"));
    file.finish();
  }
  const auto read = read_file(folder / "f", 1 << 23);
  CHECK_EQUAL(std::string(reinterpret_cast<const char*>(read.data()), read.size()) == large + small, true);
  CHECK_EQUAL(folder.files(), 1);
  {
    OutputFile left(folder / "g");
    left.write(bytes(small));
  }
  CHECK_EQUAL(folder.files(), 1);
  CHECK_THROWS({ OutputFile(folder / "none/f"); }, "io", {"none/f"});
}

TEST("a failed write names the path and the reason, keeps what was there and leaves no temporary") {
  const Folder folder;
  const std::string text = "x";
  CHECK_THROWS({ write_atomically(folder / "none/f", {bytes(text)}); }, "io", {"none/f", "No such file"});
  std::filesystem::create_directory(folder / "taken");
  CHECK_THROWS({ write_atomically(folder / "taken", {bytes(text)}); }, "io", {"taken", "directory"});
  CHECK_EQUAL(folder.files(), 1);
  if (::geteuid() != 0) {  // root may write anywhere
    ::chmod(folder.path.c_str(), 0500);
    CHECK_THROWS({ write_atomically(folder / "f", {bytes(text)}); }, "io", {"Permission denied"});
    ::chmod(folder.path.c_str(), 0700);
  }
  CHECK_THROWS({ write_atomically("", {bytes(text)}); }, "io", {"path"});
  CHECK_THROWS({ write_atomically(folder / std::string("a\0b", 3), {bytes(text)}); }, "io", {"zero byte"});
}

TEST("a full disk is an error that leaves the old file") {
  const int full = ::open("/dev/full", O_WRONLY);
  if (full < 0) return;  // only Linux has it
  ::close(full);
  const Folder folder;
  // A limit on the file size gives the same path: write() fails half-way.
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{1000, 1000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const std::string small = "old", large(5000, 'x');
    int code = 1;
    try {
      write_atomically(folder / "f", {bytes(small)});
      write_atomically(folder / "f", {bytes(large)});
    } catch (const Error& error) {
      code = error.code() == "io" && std::strstr(error.what(), "File too large") ? 0 : 2;
    }
    ::_exit(code);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  CHECK_EQUAL(WEXITSTATUS(status), 0);
  CHECK_EQUAL(text_of(folder / "f"), "old");
  CHECK_EQUAL(folder.files(), 1);
}

TEST("temporaries of a killed process with the same id are in nobody's way") {
  const Folder folder;
  const std::string text = "new";
  write_atomically(folder / "probe", {bytes(text)});
  for (int counter = 0; counter < 200; ++counter) {
    std::ofstream(folder / ("f." + std::to_string(::getpid()) + "." + std::to_string(counter) + ".tmp"))
        << "half";
  }
  write_atomically(folder / "f", {bytes(text)});
  CHECK_EQUAL(text_of(folder / "f"), "new");
}

TEST("reading is bounded by the caller, and only regular files are opened") {
  const Folder folder;
  const std::string text(100, 'x');
  write_atomically(folder / "f", {bytes(text)});
  CHECK_EQUAL(read_file(folder / "f", 100).size(), 100u);
  CHECK_THROWS({ read_file(folder / "f", 99); }, "corrupt-file", {"has 100 bytes", "at most 99"});
  CHECK_THROWS({ read_file(folder / "none", 1); }, "io", {"none", "No such file"});
  CHECK_THROWS({ read_file(folder.path.string(), 1); }, "io", {"directory"});
  CHECK(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK_THROWS({ read_file(folder / "pipe", 1); }, "io", {"pipe"});  // and does not wait for a writer
}

TEST("a file that shrinks while it is read is an error, not a crash") {
  const Folder folder;
  const std::string text(8192, 'x');
  write_atomically(folder / "f", {bytes(text)});
  const InputFile file(folder / "f");
  std::filesystem::resize_file(folder / "f", 5000);
  std::vector<std::byte> to(8192);
  CHECK_THROWS({ file.read(0, to); }, "corrupt-file", {"ends at byte 5000"});
  file.read(0, std::span(to).first(5000));
  CHECK(to[4999] == std::byte{'x'});
}

TEST("a lock is held by one, moves with its object and ends with it") {
  const Folder folder;
  {
    auto first = FileLock::try_lock(folder / "lock");
    CHECK(first.has_value());
    CHECK(!FileLock::try_lock(folder / "lock"));
    const FileLock moved = std::move(*first);
    first.reset();
    CHECK(!FileLock::try_lock(folder / "lock"));
  }
  CHECK(FileLock::try_lock(folder / "lock").has_value());
  CHECK_THROWS({ FileLock::try_lock(folder / "none/lock"); }, "io", {"none/lock", "No such file"});
}

TEST("whoever looks at a lock takes nothing and creates nothing") {
  const Folder folder;
  CHECK(!FileLock::held(folder / "lock"));
  CHECK_EQUAL(folder.files(), 0);
  {
    const auto lock = FileLock::try_lock(folder / "lock");
    CHECK(lock.has_value());
    CHECK(FileLock::held(folder / "lock"));
    CHECK(FileLock::held(folder / "lock"));
  }
  CHECK(!FileLock::held(folder / "lock"));
  CHECK(FileLock::try_lock(folder / "lock").has_value());
}

TEST("the lock of a killed process is free") {
  const Folder folder;
  int ready[2];
  CHECK(::pipe(ready) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const auto lock = FileLock::try_lock(folder / "lock");
    const char ok = lock ? 'y' : 'n';
    (void)!::write(ready[1], &ok, 1);
    for (;;) ::pause();
  }
  char ok = 0;
  CHECK(::read(ready[0], &ok, 1) == 1 && ok == 'y');
  CHECK(!FileLock::try_lock(folder / "lock"));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  CHECK(FileLock::try_lock(folder / "lock").has_value());
  ::close(ready[0]);
  ::close(ready[1]);
}
