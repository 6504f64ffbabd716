// The smallest test harness that does: TEST("promise") { CHECK(...); } and a main that counts promises kept.
#pragma once
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

#include "core/error.h"

namespace lth::test {

struct Case {
  const char* promise;
  void (*body)();
};
inline std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}
inline bool& failed() {
  static bool flag = false;
  return flag;
}
struct Register {
  Register(const char* promise, void (*body)()) { cases().push_back({promise, body}); }
};

inline void complain(const char* file, int line, const std::string& what) {
  std::printf("  %s:%d: %s\n", file, line, what.c_str());
  failed() = true;
}

template <typename T>
std::string show(const T& value) {
  std::ostringstream out;
  out.precision(17);
  if constexpr (requires { out << value; }) {
    out << value;
  } else if constexpr (requires { value.begin(); }) {
    out << "[";
    for (const auto& one : value) out << show(one) << " ";
    out << "]";
  } else {
    out << "(a value)";
  }
  return out.str();
}

template <typename A, typename B>
void check_equal(const A& a, const B& b, const char* text, const char* file, int line) {
  if (!(a == b)) complain(file, line, std::string(text) + ": " + show(a) + " is not " + show(b));
}

// body must throw Error(code) whose message holds every one of `parts`.
inline void check_throws(const std::function<void()>& body, const std::string& code,
                         const std::vector<std::string>& parts, const char* file, int line) {
  try {
    body();
  } catch (const Error& error) {
    if (error.code() != code)
      complain(file, line, "code " + error.code() + ", expected " + code + ": " + error.what());
    for (const std::string& part : parts) {
      if (std::string(error.what()).find(part) == std::string::npos) {
        complain(file, line, std::string("\"") + error.what() + "\" lacks \"" + part + "\"");
      }
    }
    return;
  } catch (const std::exception& error) {
    return complain(file, line, std::string("threw no lth::Error but ") + error.what());
  }
  complain(file, line, "did not throw");
}

// A folder that is there while the object is.
struct Folder {
  std::filesystem::path path;
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "lth-test-XXXXXX").string();
    if (!::mkdtemp(name.data())) std::abort();
    path = name;
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  std::string operator/(const std::string& name) const { return (path / name).string(); }
  int files() const {
    int n = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(path)) ++n;
    return n;
  }
};

inline int run() {
  int passed = 0, broken = 0;
  for (const Case& one : cases()) {
    failed() = false;
    try {
      one.body();
    } catch (const std::exception& error) {
      complain(one.promise, 0, std::string("threw ") + error.what());
    }
    std::printf("%s %s\n", failed() ? "FAILED" : "ok    ", one.promise);
    std::fflush(stdout);
    ++(failed() ? broken : passed);
  }
  std::printf("%d passed, %d failed\n", passed, broken);
  return broken == 0 && passed > 0 ? 0 : 1;
}

}  // namespace lth::test

#define LTH_JOIN2(a, b) a##b
#define LTH_JOIN(a, b) LTH_JOIN2(a, b)
#define TEST(promise)                                                                                   \
  static void LTH_JOIN(body_, __LINE__)();                                                              \
  static const ::lth::test::Register LTH_JOIN(register_, __LINE__)(promise, LTH_JOIN(body_, __LINE__)); \
  static void LTH_JOIN(body_, __LINE__)()
#define CHECK(...)                                                               \
  do {                                                                           \
    if (!(__VA_ARGS__)) ::lth::test::complain(__FILE__, __LINE__, #__VA_ARGS__); \
  } while (0)
#define CHECK_EQUAL(a, ...) ::lth::test::check_equal(a, __VA_ARGS__, #a, __FILE__, __LINE__)
// CHECK_THROWS({statements}, "code", {"parts", "of the message"})
#define CHECK_THROWS(body, code, ...) \
  ::lth::test::check_throws([&] body, code, std::vector<std::string> __VA_ARGS__, __FILE__, __LINE__)

int main() { return lth::test::run(); }
