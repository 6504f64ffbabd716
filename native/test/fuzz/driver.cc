// Runs a fuzz target without libFuzzer, under any compiler and sanitizer: mutates the target's seeds, the
// same way every time. Usage: fuzz_NAME [ITERATIONS]; fuzz_NAME FILE... looks at inputs again; fuzz_NAME
// --seeds FOLDER writes the seeds as a corpus for libFuzzer.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

#include "core/random.h"
#include "fuzz/seeds.h"

namespace {

const lth::Stream kNumbers = lth::stream(1, 0, lth::Purpose::kOrder, 0);

class Mutator {
 public:
  explicit Mutator(uint32_t iteration) : iteration_(iteration) {}

  void mutate(Bytes& input, const std::vector<Bytes>& seeds) {
    for (uint64_t n = 1 + below(6); n > 0; --n) {
      const size_t at = input.empty() ? 0 : below(input.size());
      switch (below(9)) {
        case 0: replace(input, at, static_cast<uint8_t>(below(256))); break;
        case 1:
          replace(input, at, static_cast<uint8_t>(input.empty() ? 0 : input[at] ^ 1u << below(8)));
          break;
        case 2:
          replace(input, at, static_cast<uint8_t>("\x00\xff\x7f\x80[]{}\",:\\0129-eu "[below(21)]));
          break;
        case 3: input.resize(at); break;
        case 4:
          input.insert(input.begin() + static_cast<long>(at), static_cast<size_t>(1 + below(20)),
                       static_cast<uint8_t>(below(256)));
          break;
        case 5:
          input.erase(input.begin() + static_cast<long>(at),
                      input.begin() + static_cast<long>(at + below(input.size() - at + 1)));
          break;
        case 6: {  // a piece of a seed
          const Bytes& from = seeds[below(seeds.size())];
          const size_t first = below(from.size() + 1), last = first + below(from.size() - first + 1);
          input.insert(input.begin() + static_cast<long>(at), from.begin() + static_cast<long>(first),
                       from.begin() + static_cast<long>(last));
          break;
        }
        case 7:  // a number of interest, in either byte order
          for (size_t i = 0; i < 8 && at + i < input.size(); ++i) input[at + i] = below(2) ? 0xff : 0;
          break;
        default: {  // another digit for a digit
          for (size_t i = at; i < input.size(); ++i) {
            if (input[i] < '0' || input[i] > '9') continue;
            input[i] = static_cast<uint8_t>('0' + below(10));
            break;
          }
        }
      }
    }
  }
  uint64_t below(uint64_t n) { return kNumbers.bits64(draws_++, iteration_, 0) % n; }

 private:
  static void replace(Bytes& input, size_t at, uint8_t value) {
    if (input.empty()) {
      input.push_back(value);
    } else {
      input[at] = value;
    }
  }
  uint32_t iteration_;
  uint64_t draws_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3 && std::string(argv[1]) == "--seeds") {
    int n = 0;
    for (const Bytes& seed : fuzz_seeds()) {
      std::ofstream file(std::string(argv[2]) + "/seed" + std::to_string(n++), std::ios::binary);
      file.write(reinterpret_cast<const char*>(seed.data()), static_cast<std::streamsize>(seed.size()));
    }
    return 0;
  }
  char* end = nullptr;
  const unsigned long iterations = argc > 1 ? std::strtoul(argv[1], &end, 10) : 20000;
  if (argc > 1 && *end != '\0') {
    for (int i = 1; i < argc; ++i) {
      std::ifstream file(argv[i], std::ios::binary);
      const Bytes input{std::istreambuf_iterator<char>(file), {}};
      LLVMFuzzerTestOneInput(input.data(), input.size());
    }
    std::printf("%d passed, 0 failed\n", argc - 1);
    return 0;
  }
  const std::vector<Bytes> seeds = fuzz_seeds();
  for (const Bytes& seed : seeds) LLVMFuzzerTestOneInput(seed.data(), seed.size());
  Bytes input;
  for (uint32_t i = 0; i < iterations; ++i) {
    Mutator mutator(i);
    // Mostly from a fresh seed, sometimes on from the last input.
    if (input.size() > 4096 || mutator.below(4) != 0) input = seeds[mutator.below(seeds.size())];
    mutator.mutate(input, seeds);
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  std::printf("%lu passed, 0 failed\n", iterations);  // a failure is a crash or a sanitizer's report
}
