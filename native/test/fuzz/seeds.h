// What a fuzz target offers. It must return for every input: lth::Error is the only way to refuse one.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

using Bytes = std::vector<uint8_t>;

std::vector<Bytes> fuzz_seeds();  // valid inputs, where the driver starts from
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
