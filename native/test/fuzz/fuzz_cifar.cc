// Records of CIFAR's binary layout from outside. The first byte says of which set they are, whether the rest is the files
// or each of its records is packed (labels and one byte, which fills the picture: mutations of a picture reach nothing),
// and where the first file ends.
#include <cstdlib>

#include "data/cifar.h"
#include "fuzz/target.h"

namespace {

enum : uint8_t { kCoarse = 1, kPacked = 2 };  // the six bits above count the records of the first file

lth::CifarLayout layout_of(uint8_t how) {
  return how & kCoarse ? lth::CifarLayout{.classes = 100, .coarse = 20} : lth::CifarLayout{};
}

// A piece that is no whole record stays as it is.
Bytes unpacked(std::span<const uint8_t> packed, const lth::CifarLayout& layout) {
  const auto piece = static_cast<size_t>(layout.label_bytes() + 1);
  Bytes records;
  for (size_t at = 0; at < packed.size(); at += piece) {
    const auto record = packed.subspan(at, std::min(piece, packed.size() - at));
    const bool whole = record.size() == piece;
    records.insert(records.end(), record.begin(), whole ? record.end() - 1 : record.end());
    if (whole) records.insert(records.end(), lth::kCifarImage, record.back());
  }
  return records;
}

}  // namespace

std::vector<Bytes> fuzz_seeds() {
  Bytes whole = {0};
  for (int record = 0; record < 2; ++record) {
    whole.push_back(static_cast<uint8_t>(3 + record));
    for (int64_t i = 0; i < lth::kCifarImage; ++i) whole.push_back(static_cast<uint8_t>(i * 7 + record));
  }
  return {{kPacked, 0, 10, 9, 255, 5, 0},
          {kPacked | 1 << 2, 0, 10, 9, 255, 5, 0},
          {kPacked | kCoarse, 0, 0, 10, 19, 99, 255},
          {kPacked | kCoarse | 1 << 2, 0, 0, 10, 19, 99, 255},
          whole};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // Longer ones only take longer.
  if (size == 0 || size > 1 << 14) return 0;
  const lth::CifarLayout layout = layout_of(data[0]);
  const std::span<const uint8_t> rest(data + 1, size - 1);
  const bool packed = data[0] & kPacked;
  if (packed && rest.size() > 200) return 0;
  const Bytes bytes = packed ? unpacked(rest, layout) : Bytes(rest.begin(), rest.end());
  const std::span<const uint8_t> all(bytes);
  const size_t cut = std::min(static_cast<size_t>(data[0] >> 2) * static_cast<size_t>(layout.record_bytes()), all.size());
  std::vector<lth::CifarFile> files = {{all.subspan(cut), "second"}};
  if (cut > 0) files.insert(files.begin(), {all.first(cut), "first"});
  outcome_of(layout.coarse > 0 ? "coarse" : "plain", [&] {
    const auto set = lth::dataset_from_cifar(files, layout);
    if (set->count * layout.record_bytes() != static_cast<int64_t>(all.size()) ||
        set->count != static_cast<int64_t>(set->labels.size()) ||
        set->count * lth::kCifarImage != static_cast<int64_t>(set->images.size()))
      std::abort();
    for (int64_t n = 0; n < set->count; ++n) {
      const int32_t label = set->labels[static_cast<size_t>(n)];
      if (label < 0 || label >= layout.classes) std::abort();
      const auto last = static_cast<size_t>((n + 1) * lth::kCifarImage - 1);
      if (set->images[last] != all[static_cast<size_t>((n + 1) * layout.record_bytes() - 1)]) std::abort();
    }
    for (const double mean : set->mean) {
      if (!(mean >= 0 && mean <= 1)) std::abort();
    }
  });
  return 0;
}
