// Pickles from outside, as CIFAR's Python layout has them.
#include <cstdlib>

#include "data/cifar.h"
#include "data/pickle.h"
#include "fuzz/target.h"
#include "pickles.h"

using lth::test::Pickler;

std::vector<Bytes> fuzz_seeds() {
  Bytes picture;
  for (int64_t i = 0; i < lth::kCifarImage; ++i) picture.push_back(static_cast<uint8_t>(i * 7));
  // Short ones come first: a mutation of a picture reaches nothing.
  return {Pickler().key("data").array(2, 2, false, {1, 2, 3, 4}).key("labels").list({3, 9}).end(),
          Pickler().key("labels").list({0, 300, 70000}).key("data").array(2, 2, true, {1, 2, 3, 4}).end(),
          Pickler().key("data").array(0, lth::kCifarImage, false, {}).key("labels").list({}).end(),
          Pickler().key("labels").list({3}).key("data").array(1, lth::kCifarImage, false, picture).end(),
          Pickler()
              .key("fine_labels")
              .list({99})
              .key("coarse_labels")
              .list({19})
              .key("data")
              .array(1, lth::kCifarImage, true, picture)
              .end()};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const uint8_t> bytes(data, size);
  outcome_of("pickle", [&] {
    const lth::Pickle pickle = lth::parse_pickle(bytes, "fuzz");
    if (pickle.top >= pickle.values.size()) std::abort();
    const auto* first = reinterpret_cast<const char*>(data);
    for (const lth::PickleValue& value : pickle.values) {
      for (const uint32_t item : value.items) {
        if (item >= pickle.values.size()) std::abort();
      }
      if (value.kind == lth::PickleValue::kDict && value.items.size() % 2 != 0) std::abort();
      if (value.kind != lth::PickleValue::kString && value.kind != lth::PickleValue::kArray) continue;
      if (value.bytes.empty()) continue;
      if (value.bytes.data() < first || value.bytes.data() + value.bytes.size() > first + size) std::abort();
    }
  });
  for (const lth::CifarLayout& layout : {lth::CifarLayout{}, lth::CifarLayout{.classes = 100, .coarse = 20}}) {
    outcome_of(layout.coarse > 0 ? "coarse" : "plain", [&] {
      const std::vector<uint8_t> records = lth::cifar_records({bytes, "fuzz"}, layout);
      if (records.size() % static_cast<size_t>(layout.record_bytes()) != 0 || records.size() > 2 * size) std::abort();
      // What was accepted is a file of the binary layout.
      const lth::CifarFile file = {records, "records"};
      if (!records.empty()) lth::dataset_from_cifar({&file, 1}, layout);
    });
  }
  return 0;
}
