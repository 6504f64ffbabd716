// What a fuzz target offers. It must return for every input: lth::Error is the only way to refuse one.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/error.h"

using Bytes = std::vector<uint8_t>;

std::vector<Bytes> fuzz_seeds();  // valid inputs, where the driver starts from
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

// How often each reader accepted an input or refused it with each kind of message: what the mutations reach.
inline std::map<std::string, uint64_t>& outcomes() {
  static std::map<std::string, uint64_t> all;
  return all;
}

// A message's kind: words in quotes, numbers, the names of tensors and those of a pickle's globals are the input's own.
inline std::string kind_of(const std::string& message) {
  std::string kind, word;
  bool quoted = false, name = false, global = false;
  for (const char c : message + ' ') {
    if (c == '"') quoted = !quoted;
    if (c != ' ') {
      word += quoted || c == '"' || static_cast<signed char>(c) < 32 || (c >= '0' && c <= '9') ? '#' : c;
      continue;
    }
    if (word == "which") global = false;
    const bool own = name || quoted || global || word.find_first_of("#/\\") != std::string::npos;
    if (!word.empty() && !(own && kind.ends_with("#"))) kind += (kind.empty() ? "" : " ") + (own ? "#" : word);
    if (word == "names") global = true;
    name = word == "tensor" || word == "dtype" || word == "but";
    word.clear();
  }
  return kind.substr(0, 80);
}

// Runs a reader and notes how it ended. Another exception than lth::Error gets through and ends the program.
template <typename F>
void outcome_of(const std::string& reader, F&& read) {
  std::string how = ": accepted";
  try {
    read();
  } catch (const lth::Error& error) {
    how = ": " + kind_of(error.what());
  }
  auto& all = outcomes();
  if (all.size() < 2000 || all.count(reader + how)) ++all[reader + how];
}
