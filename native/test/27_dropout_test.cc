// What dropout keeps.
#include <cmath>
#include <vector>

#include "check.h"
#include "data/dropout.h"

using namespace lth;

namespace {

std::vector<bool> kept(const DropoutNoise& noise, int layer, int64_t example, int64_t elements, double probability) {
  std::vector<bool> all;
  draw_dropout(noise, layer, example, elements, probability, [&](int64_t element, bool stays) {
    CHECK_EQUAL(element, static_cast<int64_t>(all.size()));
    all.push_back(stays);
  });
  CHECK_EQUAL(static_cast<int64_t>(all.size()), elements);
  return all;
}

}  // namespace

TEST("what stays is frozen, word by word of the generator") {
  // By an independent implementation in Python: words of index 7 * 3 + block, epoch 4, layer 1.
  const std::vector<bool> expected = {false, true, true, true, true, true, true, true, false, false};
  CHECK(kept(dropout_noise(3, 2, 9, 4), 1, 7, 10, 0.3) == expected);
}

TEST("seed, replicate, noise, epoch, layer and example matter, each of them") {
  const auto base = kept(dropout_noise(3, 2, 9, 4), 1, 7, 200, 0.5);
  CHECK(kept(dropout_noise(3, 2, 9, 4), 1, 7, 200, 0.5) == base);
  for (const DropoutNoise& other : {dropout_noise(4, 2, 9, 4), dropout_noise(3, 1, 9, 4), dropout_noise(3, 2, 8, 4), dropout_noise(3, 2, 9, 5)}) {
    CHECK(kept(other, 1, 7, 200, 0.5) != base);
  }
  CHECK(kept(dropout_noise(3, 2, 9, 4), 0, 7, 200, 0.5) != base);
  CHECK(kept(dropout_noise(3, 2, 9, 4), 1, 8, 200, 0.5) != base);
}

TEST("as many are dropped as asked for; with probability 0 none") {
  for (const double probability : {0.0, 0.1, 0.5, 0.9}) {
    constexpr int64_t kElements = 100003;
    const auto stays = kept(dropout_noise(1, 0, 0, 0), 0, 3, kElements, probability);
    int64_t dropped = 0;
    for (const bool one : stays) dropped += !one;
    const double expected = probability * kElements, error = 4 * std::sqrt(expected * (1 - probability));
    CHECK(std::fabs(static_cast<double>(dropped) - expected) <= error);
  }
}
