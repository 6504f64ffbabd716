// IDX bytes from outside: the first byte says where the images end and the labels begin.
#include <cstdlib>

#include "data/dataset.h"
#include "data/idx.h"
#include "fuzz/target.h"

std::vector<Bytes> fuzz_seeds() {
  const Bytes images = {0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 1, 9, 255, 0, 7},
              labels = {0, 0, 8, 1, 0, 0, 0, 2, 1, 0};
  Bytes both = {static_cast<uint8_t>(images.size())};
  both.insert(both.end(), images.begin(), images.end());
  both.insert(both.end(), labels.begin(), labels.end());
  Bytes swapped = {static_cast<uint8_t>(labels.size())};
  swapped.insert(swapped.end(), labels.begin(), labels.end());
  swapped.insert(swapped.end(), images.begin(), images.end());
  return {both, swapped};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::span<const uint8_t> rest(data + 1, size - 1);
  const size_t cut = data[0] < rest.size() ? data[0] : rest.size();
  for (const int dimensions : {1, 3}) {
    outcome_of(dimensions == 1 ? "labels" : "images", [&] {
      const lth::Idx idx = lth::parse_idx(rest.first(cut), dimensions, "fuzz");
      int64_t elements = 1;
      for (const int64_t extent : idx.shape) elements *= extent;
      if (elements != static_cast<int64_t>(idx.elements.size()) ||
          idx.elements.size() + 4 + 4 * idx.shape.size() != cut)
        std::abort();
    });
  }
  outcome_of("data set", [&] {
    const auto set = lth::dataset_from_idx(rest.first(cut), rest.subspan(cut), 10, "images", "labels");
    const lth::Split parts = lth::split(*set, set->count / 2, 1);
    if (parts.train.size() + parts.validation.size() != set->labels.size()) std::abort();
    for (const int32_t label : set->labels) {
      if (label < 0 || label >= 10) std::abort();
    }
  });
  return 0;
}
