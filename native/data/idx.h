// The IDX format of MNIST and its kin (unsigned bytes).
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace lth {

struct Idx {
  std::vector<int64_t> shape;         // (N,H,W) of images, (N) of labels
  std::span<const uint8_t> elements;  // a view of the bytes given
};

// `bytes` is the unpacked file, `dimensions` 3 for images and 1 for labels; `name` is what errors call the file.
Idx parse_idx(std::span<const uint8_t> bytes, int dimensions, const std::string& name);

}  // namespace lth
