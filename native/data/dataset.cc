#include "data/dataset.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "core/error.h"
#include "core/random.h"
#include "core/shape.h"
#include "data/idx.h"

namespace lth {
// Exact integer sums, so that the figures do not depend on an order of summation.
void measure_channels(Dataset& data) {
  const int64_t channels = data.shape[0], plane = data.features / channels;
  for (int64_t c = 0; c < channels; ++c) {
    uint64_t sum = 0, squares = 0;
    for (int64_t n = 0; n < data.count; ++n) {
      const uint8_t* from = data.images.data() + n * data.features + c * plane;
      for (int64_t i = 0; i < plane; ++i) {
        sum += from[i];
        squares += static_cast<uint64_t>(from[i]) * from[i];
      }
    }
    const double total = static_cast<double>(data.count) * static_cast<double>(plane);
    const double mean = static_cast<double>(sum) / total;
    data.mean.push_back(mean / 255);
    data.std.push_back(std::sqrt(std::max(0.0, static_cast<double>(squares) / total - mean * mean)) / 255);
  }
}

std::shared_ptr<Dataset> dataset_from_idx(std::span<const uint8_t> images, std::span<const uint8_t> labels,
                                                int classes, const std::string& images_name,
                                                const std::string& labels_name) {
  const Idx x = parse_idx(images, 3, images_name), y = parse_idx(labels, 1, labels_name);
  if (x.shape[0] != y.shape[0]) {
    throw Error("corrupt-file", "[idx] " + images_name + " holds " + std::to_string(x.shape[0]) + " images, " +
                                    labels_name + " holds " + std::to_string(y.shape[0]) + " labels");
  }
  auto data = std::make_shared<Dataset>();
  data->count = x.shape[0];
  data->shape = {1, x.shape[1], x.shape[2]};
  data->features = x.shape[1] * x.shape[2];
  data->classes = classes;
  for (size_t i = 0; i < y.elements.size(); ++i) {
    if (y.elements[i] >= classes) {
      throw Error("corrupt-file", "[idx] " + labels_name + ": label " + std::to_string(i) + " is " +
                                      std::to_string(y.elements[i]) + ", expected 0 to " + std::to_string(classes - 1));
    }
  }
  data->images.assign(x.elements.begin(), x.elements.end());
  data->labels.assign(y.elements.begin(), y.elements.end());
  measure_channels(*data);
  return data;
}

std::shared_ptr<Dataset> dataset_from_bytes(std::span<const uint8_t> images, std::vector<int32_t> labels,
                                            std::vector<int64_t> shape, int classes) {
  auto data = std::make_shared<Dataset>();
  data->count = static_cast<int64_t>(labels.size());
  data->features = std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
  data->classes = classes;
  if (labels.empty()) throw Error("invalid-argument", "[dataset] expected at least one example");
  if (static_cast<int64_t>(images.size()) / data->features != data->count ||
      static_cast<int64_t>(images.size()) % data->features != 0) {
    throw Error("wrong-shape", "[dataset] " + std::to_string(labels.size()) + " examples of shape " + text_of(shape) + " are " +
                                   std::to_string(data->features) + " bytes each, the images are " +
                                   std::to_string(images.size()) + " bytes");
  }
  for (size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] < 0 || labels[i] >= classes) {
      throw Error("invalid-argument", "[dataset] label " + std::to_string(i) + " is " + std::to_string(labels[i]) +
                                          ", expected 0 to " + std::to_string(classes - 1));
    }
  }
  data->shape = std::move(shape);
  data->images.assign(images.begin(), images.end());
  data->labels = std::move(labels);
  measure_channels(*data);
  return data;
}

std::shared_ptr<Dataset> dataset_of_pictures(FilePictures pictures, std::vector<double> mean, std::vector<double> std) {
  const PictureSet& set = *pictures.set;
  const int64_t size = pictures.training.size;
  check(pictures.training);
  check(pictures.evaluation);
  if (pictures.evaluation.size != size) {
    throw Error("invalid-argument", "[pictures] crops for training are of " + std::to_string(size) + " pixels, those for evaluation of " +
                                        std::to_string(pictures.evaluation.size) + ": a network reads one size");
  }
  if (mean.size() != 3 || std.size() != 3) throw Error("invalid-argument", "[pictures] mean and std: expected three numbers each");
  auto data = std::make_shared<Dataset>();
  data->count = set.count();
  data->shape = {3, size, size};
  data->features = 3 * size * size;
  data->classes = set.classes();
  data->digest = set.digest();
  for (int64_t row = 0; row < set.count(); ++row) data->labels.push_back(set.label(row));
  data->mean = std::move(mean);
  data->std = std::move(std);
  data->pictures = std::move(pictures);
  return data;
}

namespace {

// The first `size` of rows in a random order, taken in turns from the classes that have some left.
void balance(const Dataset& data, std::vector<int32_t>& rows, int64_t size) {
  std::vector<int64_t> turn(data.count), taken(data.classes);
  for (int32_t row : rows) turn[row] = taken[data.labels[row]]++;
  std::stable_sort(rows.begin(), rows.end(), [&](int32_t a, int32_t b) { return turn[a] < turn[b]; });
  rows.resize(size);
}

}  // namespace

Split split(const Dataset& data, int64_t validation, uint64_t seed, int64_t subset) {
  if (validation < 0 || validation > data.count) {
    throw Error("invalid-argument", "[split] validation: expected 0 to " + std::to_string(data.count) +
                                        " examples but received " + std::to_string(validation));
  }
  if (subset < 0 || subset > data.count - validation) {
    throw Error("invalid-argument", "[split] subset: expected 0 to the " + std::to_string(data.count - validation) +
                                        " examples that are not held out but received " + std::to_string(subset));
  }
  const std::vector<int32_t> order = permutation(stream(seed, 0, Purpose::kSplit, 0), data.count, 0, 0);
  Split out;
  out.validation.assign(order.begin(), order.begin() + validation);
  out.train.assign(order.begin() + validation, order.end());
  if (subset > 0) balance(data, out.train, subset);
  std::sort(out.validation.begin(), out.validation.end());
  std::sort(out.train.begin(), out.train.end());
  return out;
}

}  // namespace lth
