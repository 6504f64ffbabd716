// Errors of the native side: a code for programs, a sentence for people that starts with the operation's tag.
#pragma once
#include <stdexcept>
#include <string>
#include <utility>

namespace lth {

class Error : public std::runtime_error {
 public:
  Error(std::string code, const std::string& message) : std::runtime_error(message), code_(std::move(code)) {}
  const std::string& code() const noexcept { return code_; }

 private:
  std::string code_;
};

// Codes in use (mirrored by ErrorCode in lib/native/errors.ts): "invalid-argument", "wrong-shape",
// "corrupt-file", "io", "unsupported", "no-cuda", "disposed", "wrong-handle", "busy", "diverged".

}  // namespace lth
