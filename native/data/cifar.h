// The two layouts of CIFAR-10 and CIFAR-100: records of bytes, and Python's pickles.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/dataset.h"

namespace lth {

constexpr int64_t kCifarChannels = 3, kCifarSide = 32, kCifarImage = kCifarChannels * kCifarSide * kCifarSide;

struct CifarLayout {
  int classes = 10;
  int coarse = 0;  // coarse classes, whose label stands before the one that counts; 0: none

  int64_t label_bytes() const { return coarse > 0 ? 2 : 1; }
  int64_t record_bytes() const { return label_bytes() + kCifarImage; }
};

struct CifarFile {
  std::span<const uint8_t> bytes;
  std::string name;  // what errors call it
};

// The files' records one after the other: label bytes, then the picture (3,32,32), a byte an element.
// Error("corrupt-file") names file and record.
std::shared_ptr<Dataset> dataset_from_cifar(std::span<const CifarFile> files, const CifarLayout& layout);

// A pickle's pictures and labels as the records that the binary layout has of them.
std::vector<uint8_t> cifar_records(const CifarFile& pickle, const CifarLayout& layout);

}  // namespace lth
