// Mutations of an input, the same ones for the same number: a failure is repeated from its number alone.
#pragma once
#include <algorithm>

#include "core/random.h"
#include "fuzz/target.h"

class Mutator {
 public:
  explicit Mutator(uint32_t iteration) : iteration_(iteration) {}

  // Half of the inputs come from the first `valid` seeds, mostly by one change or two: what is changed in many places is
  // refused at the first.
  Bytes from(const std::vector<Bytes>& seeds, size_t valid) {
    Bytes input = seeds[below(below(2) ? valid : seeds.size())];
    const uint64_t changes = below(3) != 0 ? 1 + below(2) : 1 + below(16);
    for (uint64_t n = 0; n < changes; ++n) change(input, seeds);
    return input;
  }

 private:
  void change(Bytes& input, const std::vector<Bytes>& seeds) {
    const size_t at = input.empty() ? 0 : below(input.size());
    switch (below(11)) {
      case 0: replace(input, at, static_cast<uint8_t>(below(256))); break;
      case 1: replace(input, at, static_cast<uint8_t>(input.empty() ? 0 : input[at] ^ 1u << below(8))); break;
      case 2: replace(input, at, static_cast<uint8_t>("\x00\xff\x7f\x80[]{}\",:\\0129-eu \n"[below(22)])); break;
      case 3: input.resize(at); break;
      case 4: input.insert(iterator(input, at), 1 + below(20), static_cast<uint8_t>(below(256))); break;
      case 5: input.erase(iterator(input, at), iterator(input, at + below(input.size() - at + 1))); break;
      case 6: {  // a piece of a seed
        const Bytes& from = seeds[below(seeds.size())];
        const size_t first = below(from.size() + 1), last = first + below(from.size() - first + 1);
        input.insert(iterator(input, at), from.begin() + static_cast<long>(first), from.begin() + static_cast<long>(last));
        break;
      }
      case 7:  // a number of interest, in either byte order
        for (size_t i = 0; i < 8 && at + i < input.size(); ++i) input[at + i] = below(2) ? 0xff : 0;
        break;
      case 8: {  // another digit for a digit
        const auto digit = std::find_if(iterator(input, at), input.end(), [](uint8_t c) { return c >= '0' && c <= '9'; });
        if (digit != input.end()) *digit = static_cast<uint8_t>('0' + below(10));
        break;
      }
      default: change_word(input, at, seeds[below(seeds.size())]);
    }
  }

  // A line, or what stands between two commas or quotes: left out, doubled, or replaced by one of a seed.
  void change_word(Bytes& input, size_t at, const Bytes& seed) {
    const auto mark = static_cast<uint8_t>("\n,\""[below(3)]);
    const auto [first, last] = word(input, at, mark);
    const Bytes here(iterator(input, first), iterator(input, last));
    const uint64_t what = below(4);
    if (what != 1) input.erase(iterator(input, first), iterator(input, last));
    if (what == 0 || seed.empty()) return;
    const auto [from, to] = word(seed, below(seed.size()), mark);
    const Bytes other = what == 1 ? here : Bytes(seed.begin() + static_cast<long>(from), seed.begin() + static_cast<long>(to));
    input.insert(iterator(input, first), other.begin(), other.end());
    if (what == 1) input.insert(iterator(input, first + here.size()), mark);
  }
  static std::pair<size_t, size_t> word(const Bytes& in, size_t at, uint8_t mark) {
    size_t first = at, last = at;
    while (first > 0 && in[first - 1] != mark) --first;
    while (last < in.size() && in[last] != mark) ++last;
    return {first, last};
  }

  static Bytes::iterator iterator(Bytes& input, size_t at) { return input.begin() + static_cast<long>(at); }
  static void replace(Bytes& input, size_t at, uint8_t value) {
    if (input.empty()) {
      input.push_back(value);
    } else {
      input[at] = value;
    }
  }
  uint64_t below(uint64_t n) { return numbers().bits64(draws_++, iteration_, 0) % n; }
  static const lth::Stream& numbers() {
    static const lth::Stream stream = lth::stream(1, 0, lth::Purpose::kOrder, 0);
    return stream;
  }

  uint32_t iteration_;
  uint64_t draws_ = 0;
};
