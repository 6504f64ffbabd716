#include "data/cifar.h"

#include <algorithm>

#include "core/error.h"
#include "data/pickle.h"

namespace lth {
namespace {

Error corrupt(const std::string& name, const std::string& what) {
  return Error("corrupt-file", "[cifar] " + name + ": " + what);
}

void check_label(const std::string& name, int64_t record, const char* kind, int64_t label, int classes) {
  if (label >= 0 && label < classes) return;
  throw corrupt(name, "record " + std::to_string(record) + ": its " + kind + "label is " + std::to_string(label) +
                          ", expected 0 to " + std::to_string(classes - 1));
}

const char* fine_of(const CifarLayout& layout) { return layout.coarse > 0 ? "fine " : ""; }

int64_t records_of(const CifarFile& file, const CifarLayout& layout) {
  const auto size = static_cast<int64_t>(file.bytes.size());
  if (size == 0) throw corrupt(file.name, "is empty");
  if (size % layout.record_bytes() != 0) {
    throw corrupt(file.name, "has " + std::to_string(size) + " bytes, which are no whole records of " +
                                 std::to_string(layout.record_bytes()));
  }
  return size / layout.record_bytes();
}

// The labels under a key of the pickle, one for each of `count` pictures.
std::vector<uint8_t> labels_of(const Pickle& pickle, const std::string& name, const char* key, int64_t count,
                               const char* kind, int classes) {
  const PickleValue* list = pickle.find(key, name);
  if (!list || list->kind != PickleValue::kList) throw corrupt(name, std::string("holds no list ") + key);
  if (static_cast<int64_t>(list->items.size()) != count) {
    throw corrupt(name, "holds " + std::to_string(count) + " pictures and " + std::to_string(list->items.size()) + " " +
                            key);
  }
  std::vector<uint8_t> labels;
  labels.reserve(list->items.size());
  for (const uint32_t item : list->items) {
    const PickleValue& label = pickle.values[item];
    const auto record = static_cast<int64_t>(labels.size());
    if (label.kind != PickleValue::kInt) {
      throw corrupt(name, "record " + std::to_string(record) + ": its " + kind + "label is no number");
    }
    check_label(name, record, kind, label.number, classes);
    labels.push_back(static_cast<uint8_t>(label.number));
  }
  return labels;
}

}  // namespace

std::shared_ptr<Dataset> dataset_from_cifar(std::span<const CifarFile> files, const CifarLayout& layout) {
  int64_t count = 0;
  for (const CifarFile& file : files) count += records_of(file, layout);
  auto data = std::make_shared<Dataset>();
  data->count = count;
  data->shape = {kCifarChannels, kCifarSide, kCifarSide};
  data->features = kCifarImage;
  data->classes = layout.classes;
  data->images.reserve(static_cast<size_t>(count * kCifarImage));
  data->labels.reserve(static_cast<size_t>(count));
  for (const CifarFile& file : files) {
    for (int64_t r = 0; r < records_of(file, layout); ++r) {
      const auto record = file.bytes.subspan(static_cast<size_t>(r * layout.record_bytes()),
                                             static_cast<size_t>(layout.record_bytes()));
      const auto picture = record.subspan(static_cast<size_t>(layout.label_bytes()));
      const uint8_t label = record[static_cast<size_t>(layout.label_bytes()) - 1];
      if (layout.coarse > 0) check_label(file.name, r, "coarse ", record[0], layout.coarse);
      check_label(file.name, r, fine_of(layout), label, layout.classes);
      data->labels.push_back(label);
      data->images.insert(data->images.end(), picture.begin(), picture.end());
    }
  }
  measure_channels(*data);
  return data;
}

std::vector<uint8_t> cifar_records(const CifarFile& file, const CifarLayout& layout) {
  const Pickle pickle = parse_pickle(file.bytes, file.name);
  const PickleValue* data = pickle.find("data", file.name);
  if (!data || data->kind != PickleValue::kArray || data->shape.empty()) {
    throw corrupt(file.name, "holds no numpy array of bytes under data");
  }
  const int64_t count = data->shape[0];
  if (data->shape[1] != kCifarImage) {
    throw corrupt(file.name, "holds pictures of " + std::to_string(data->shape[1]) + " bytes, expected " +
                                 std::to_string(kCifarImage));
  }
  std::vector<std::vector<uint8_t>> labels;
  if (layout.coarse > 0) {
    labels.push_back(labels_of(pickle, file.name, "coarse_labels", count, "coarse ", layout.coarse));
    labels.push_back(labels_of(pickle, file.name, "fine_labels", count, "fine ", layout.classes));
  } else {
    labels.push_back(labels_of(pickle, file.name, "labels", count, "", layout.classes));
  }
  std::vector<uint8_t> records(static_cast<size_t>(count * layout.record_bytes()));
  const auto* bytes = reinterpret_cast<const uint8_t*>(data->bytes.data());
  for (int64_t n = 0; n < count; ++n) {
    uint8_t* to = records.data() + n * layout.record_bytes();
    for (const auto& of : labels) *to++ = of[static_cast<size_t>(n)];
    if (data->number == 0) {
      std::copy_n(bytes + n * kCifarImage, kCifarImage, to);
    } else {
      for (int64_t i = 0; i < kCifarImage; ++i) to[i] = bytes[i * count + n];
    }
  }
  return records;
}

}  // namespace lth
