// Bits as Arrow packs them, and the arenas they index.
#include <cstdio>
#include <fstream>
#include <string>

#include "check.h"
#include "core/bitmask.h"
#include "core/snapshot.h"

using namespace lth;

TEST("bit i is bit i % 64 of word i / 64, least significant first") {
  std::vector<uint64_t> words(3, 0);
  for (const int64_t i : {0, 1, 63, 64, 130}) set_bit(words, i);
  CHECK_EQUAL(words, std::vector<uint64_t>{1ull << 63 | 3, 1, 4});
  CHECK(bit_at(words, 63) && !bit_at(words, 62) && bit_at(words, 130));
  clear_bit(words, 63);
  CHECK_EQUAL(words[0], 3u);
  // Arrow: bit i is bit i % 8 of byte i / 8.
  CHECK_EQUAL(static_cast<int>(reinterpret_cast<const unsigned char*>(words.data())[16]), 4);
}

TEST("filling and counting stop at the last bit of a tensor, not of its word") {
  for (const int64_t size : {1, 63, 64, 65, 127, 128, 129, 200}) {
    std::vector<uint64_t> words(6, ~uint64_t{0});
    words[5] = 0;
    fill_bits(words, 64, size);
    CHECK_EQUAL(words[0], ~uint64_t{0});
    CHECK_EQUAL(count_bits(words, 64, size), size);
    CHECK_EQUAL(count_bits(words, 64, (size + 63) / 64 * 64), size);  // the rest of the word is clear
  }
}

TEST("for_each_bit meets every one once, in order, while bits are cleared") {
  std::vector<uint64_t> words(4, 0);
  const std::vector<int64_t> ones = {64, 65, 100, 127, 128, 190};
  for (const int64_t i : ones) set_bit(words, i);
  set_bit(words, 191);  // outside
  std::vector<int64_t> met;
  for_each_bit(words, 64, 127, [&](int64_t i) {
    met.push_back(i);
    clear_bit(words, i);
  });
  CHECK_EQUAL(met, ones);
  CHECK_EQUAL(count_bits(words, 0, 256), 1);
}

TEST("an arena is aligned, zeroed, and may be empty") {
  for (const size_t bytes : {size_t{0}, size_t{1}, size_t{64}, size_t{100001}}) {
    const Arena arena(bytes);
    CHECK_EQUAL(arena.size(), bytes);
    CHECK_EQUAL(reinterpret_cast<uintptr_t>(arena.data()) % 64, 0u);
    for (size_t i = 0; i < bytes; ++i) CHECK(arena.data()[i] == std::byte{0});
  }
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST("memory that cannot be had is an error, not an end") {
  CHECK_THROWS({ Arena(size_t{1} << 60); }, "io", {"out of memory", "1152921504606846976"});
}
#endif

TEST("offsets of parameters are whole words") {
  ParameterLayout layout;
  for (const int64_t size : {1, 64, 65}) {
    ParameterSpec p;
    p.name = "p" + std::to_string(size);
    p.shape = {size};
    layout.add(p);
  }
  CHECK_EQUAL(layout.parameters[1].offset, 64);
  CHECK_EQUAL(layout.parameters[2].offset, 128);
  CHECK_EQUAL(layout.arena, 256);
  ParameterLayout same = layout, other = layout;
  other.parameters[1].shape = {8, 8};
  CHECK(layout.same_places(same) && !layout.same_places(other));
}

TEST("memory that is not there is refused before it is touched, in words that say what there is") {
  std::ifstream meminfo("/proc/meminfo");
  unsigned long long available = 0;
  for (std::string line; std::getline(meminfo, line);) {
    if (std::sscanf(line.c_str(), "MemAvailable: %llu kB", &available) == 1) break;
  }
  if (available == 0) return;  // a system that does not say
  CHECK_THROWS({ Arena((available << 10) + (size_t{1} << 33)); }, "io", {"[memory] out of memory: wanted ", " are available"});
}
