// Random numbers are a function, not a state (design: contract 3). Philox4x32-10 (Salmon et al., SC 2011),
// keyed in two steps: (seed; replicate, purpose, noise) -> stream; (stream; index, epoch, layer) -> numbers.
#pragma once
#include <array>
#include <cstdint>
#include <vector>

namespace lth {

enum class Purpose : uint32_t {
  kInitialisation = 1,  // noise = draw (0 the network's, 1.. reinitialisations), layer, element
  kSplit = 2,           // train / validation
  kOrder = 3,           // noise, epoch
  kAugmentation = 4,    // noise, epoch, example
  kDropout = 5,         // noise, epoch, example and element, layer
  kMask = 6,            // random subnetworks: layer, element
  kScore = 16,          // which examples scores are taken on
};

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

struct Stream {
  std::array<uint32_t, 2> key;
  // Four words; (index, epoch, layer) is the counter.
  std::array<uint32_t, 4> words(uint64_t index, uint32_t epoch, uint32_t layer) const;
  uint64_t bits64(uint64_t index, uint32_t epoch, uint32_t layer) const;
};

Stream stream(uint64_t seed, uint32_t replicate, Purpose purpose, uint64_t noise);

// Natural logarithm of a normal positive double through + - * / alone: the C library's differs between versions.
double logarithm(double x);

// Standard normal by inversion (Wichura, AS241 PPND16) of a 53-bit uniform in (0,1); uses only + - * / sqrt and a
// logarithm of our own, so the bits do not depend on the C library.
double normal(const Stream& s, uint64_t index, uint32_t epoch, uint32_t layer);
// The same of a standard normal that is cut off at two deviations, of which its own is then kTruncatedDeviation.
double truncated_normal(const Stream& s, uint64_t index, uint32_t epoch, uint32_t layer);
constexpr double kTruncatedDeviation = 0.87962566103423978;
// Of (-1, 1), both ends equally far away.
double uniform(const Stream& s, uint64_t index, uint32_t epoch, uint32_t layer);

// A permutation of 0..n-1: Fisher-Yates from the end, j = (bits64(i) * (i + 1)) >> 64 for i = n-1 .. 1.
// Frozen by golden vectors: changing it would change every run. At most 2^31 - 1 things, else Error("unsupported").
std::vector<int32_t> permutation(const Stream& s, int64_t n, uint32_t epoch, uint32_t layer);

}  // namespace lth
