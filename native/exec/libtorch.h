// Facts about the LibTorch in use.
#pragma once
#include <string>

namespace lth {

std::string libtorch_version();  // "2.13.0"
std::string libtorch_path();     // the folder that holds lib/, as the dynamic linker found it

}  // namespace lth
