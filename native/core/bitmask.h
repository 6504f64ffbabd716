// Bits packed least significant first, as Arrow packs a Bool vector: bit i is bit i % 64 of word i / 64.
#pragma once
#include <bit>
#include <cstdint>
#include <span>

namespace lth {

inline bool bit_at(std::span<const uint64_t> words, int64_t i) { return words[i / 64] >> (i % 64) & 1; }
inline void set_bit(std::span<uint64_t> words, int64_t i) { words[i / 64] |= uint64_t{1} << (i % 64); }
inline void clear_bit(std::span<uint64_t> words, int64_t i) { words[i / 64] &= ~(uint64_t{1} << (i % 64)); }

// Ones among bits [first, first + size); first is a multiple of 64.
inline int64_t count_bits(std::span<const uint64_t> words, int64_t first, int64_t size) {
  int64_t ones = 0;
  for (int64_t i = 0; i < size; i += 64) {
    uint64_t word = words[(first + i) / 64];
    if (size - i < 64) word &= (uint64_t{1} << (size - i)) - 1;
    ones += std::popcount(word);
  }
  return ones;
}

// Sets bits [first, first + size) and clears what is left of the last word; first is a multiple of 64.
inline void fill_bits(std::span<uint64_t> words, int64_t first, int64_t size) {
  for (int64_t i = 0; i < size; i += 64) {
    words[(first + i) / 64] = size - i < 64 ? (uint64_t{1} << (size - i)) - 1 : ~uint64_t{0};
  }
}

// f(i) for every one among bits [first, first + size), ascending; first is a multiple of 64. f may clear bit i.
template <typename F>
void for_each_bit(std::span<const uint64_t> words, int64_t first, int64_t size, F&& f) {
  for (int64_t i = 0; i < size; i += 64) {
    uint64_t word = words[(first + i) / 64];
    if (size - i < 64) word &= (uint64_t{1} << (size - i)) - 1;
    for (; word != 0; word &= word - 1) f(first + i + std::countr_zero(word));
  }
}

}  // namespace lth
