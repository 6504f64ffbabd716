// What of Python's pickles the CIFAR files need: protocol 2 as Python 2 wrote it, with containers, numbers, strings and
// numpy arrays of bytes. Nothing is ever called: any other opcode, global or shape of them is Error("corrupt-file").
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lth {

struct PickleValue {
  enum Kind : uint8_t { kNone, kBool, kInt, kString, kTuple, kList, kDict, kGlobal, kDtype, kArray };
  Kind kind = kNone;
  int64_t number = 0;              // of an int or bool; of an array: is it in Fortran's order?
  std::string_view bytes;          // of a string, a global ("module name"), an array: a view of the pickle
  std::vector<uint32_t> items;     // of a container, in the pickle's values; of a dict: key, value, key, value
  std::vector<int64_t> shape;      // of an array of unsigned bytes
};

struct Pickle {
  std::vector<PickleValue> values;
  uint32_t top = 0;

  // The value of a string key of the top dict; nullptr where there is none. Error("corrupt-file") where it stands twice.
  const PickleValue* find(std::string_view key, const std::string& name) const;
};

// `name` is what errors call the file. Memory is bounded by a constant and the length of `bytes`, which must outlive it.
Pickle parse_pickle(std::span<const uint8_t> bytes, const std::string& name);

}  // namespace lth
