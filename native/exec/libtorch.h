// Facts about the LibTorch in use.
#pragma once
#include <exception>
#include <string>

namespace lth {

// An exception in words: an Error's own, LibTorch's without its C++ stack, "out of memory" for what could not be had.
struct Failure {
  std::string code, message;
};
Failure failure_of(const std::exception_ptr& exception);

std::string libtorch_version();  // "2.13.0"
// The instruction sets that decide which of its kernels run: "avx512+bf16". With what the environment asks for.
std::string libtorch_isa();
std::string libtorch_path();     // the folder that holds lib/, as the dynamic linker found it

}  // namespace lth
