// Examples, their split and their order.
#include <algorithm>
#include <cmath>

#include "check.h"
#include "data/dataset.h"
#include "data/order.h"

using namespace lth;

namespace {

std::vector<uint8_t> idx(std::vector<uint32_t> extents, std::vector<uint8_t> elements) {
  std::vector<uint8_t> bytes = {0, 0, 8, static_cast<uint8_t>(extents.size())};
  for (const uint32_t n : extents) {
    for (const int shift : {24, 16, 8, 0}) bytes.push_back(static_cast<uint8_t>(n >> shift));
  }
  for (const uint8_t element : elements) bytes.push_back(element);
  return bytes;
}

std::vector<uint8_t> images(uint32_t n, uint32_t h, uint32_t w, std::vector<uint8_t> elements) {
  elements.resize(size_t{n} * h * w);
  return idx({n, h, w}, std::move(elements));
}

std::vector<uint8_t> labels(std::vector<uint8_t> values) {
  const auto n = static_cast<uint32_t>(values.size());
  return idx({n}, std::move(values));
}

std::shared_ptr<const Dataset> examples(uint32_t n) {
  return dataset_from_idx(images(n, 1, 1, {}), labels(std::vector<uint8_t>(n, 0)), 1, "images", "labels");
}

}  // namespace

TEST("a data set holds its bytes, labels, shape, and the moments of x/255") {
  const auto data =
      dataset_from_idx(images(3, 1, 2, {0, 255, 51, 102, 255, 0}), labels({2, 0, 1}), 3, "x", "y");
  CHECK_EQUAL(data->count, 3);
  CHECK_EQUAL(data->shape, std::vector<int64_t>{1, 1, 2});
  CHECK_EQUAL(data->features, 2);
  CHECK_EQUAL(data->classes, 3);
  CHECK_EQUAL(data->labels, std::vector<int32_t>{2, 0, 1});
  CHECK_EQUAL(static_cast<int>(data->images[3]), 102);
  const double x[] = {0, 1, .2, .4, 1, 0};
  double mean = 0, variance = 0;
  for (const double v : x) mean += v / 6;
  for (const double v : x) variance += (v - mean) * (v - mean) / 6;
  CHECK(std::fabs(data->mean.at(0) - mean) < 1e-15);
  CHECK(std::fabs(data->std.at(0) - std::sqrt(variance)) < 1e-15);
}

TEST("images and labels that do not belong together are refused") {
  CHECK_THROWS({ dataset_from_idx(images(3, 1, 1, {}), labels({0, 0}), 1, "x-file", "y-file"); },
               "corrupt-file", {"x-file holds 3 images", "y-file holds 2 labels"});
  CHECK_THROWS({ dataset_from_idx(images(3, 1, 1, {}), labels({0, 10, 0}), 10, "x", "y"); }, "corrupt-file",
               {"[idx] y: label 1 is 10, expected 0 to 9"});
}

TEST("the split is a function of the seed, frozen and ascending, and every example is in one part") {
  const auto data = examples(20);
  const Split parts = split(*data, 5, 9);
  CHECK_EQUAL(parts.validation, std::vector<int32_t>{0, 5, 9, 13, 15});
  CHECK_EQUAL(parts.train, std::vector<int32_t>{1, 2, 3, 4, 6, 7, 8, 10, 11, 12, 14, 16, 17, 18, 19});
  CHECK(split(*data, 5, 10).validation != parts.validation);
  CHECK(split(*data, 0, 9).validation.empty());
  CHECK_EQUAL(split(*data, 20, 9).train.size(), 0u);
  CHECK_THROWS({ split(*data, 21, 9); }, "invalid-argument", {"20", "21"});
  CHECK_THROWS({ split(*data, -1, 9); }, "invalid-argument", {"-1"});
}

TEST("a subset is chosen by the seed, balanced over classes, within what is not held out, and grows") {
  auto data = std::make_shared<Dataset>();
  data->count = 40;
  data->classes = 4;
  data->labels.resize(40);
  // Sorted by class as files may be; class 3 has only three.
  for (int i = 0; i < 40; ++i) data->labels[static_cast<size_t>(i)] = i < 20 ? 0 : i < 30 ? 1 : i < 37 ? 2 : 3;
  const auto counts = [&](const std::vector<int32_t>& rows) {
    std::vector<int> of(4);
    for (int32_t row : rows) ++of[static_cast<size_t>(data->labels[static_cast<size_t>(row)])];
    return of;
  };
  const Split whole = split(*data, 0, 3);
  CHECK_EQUAL(counts(split(*data, 0, 3, 8).train), std::vector<int>{2, 2, 2, 2});
  CHECK_EQUAL(counts(split(*data, 0, 3, 24).train), std::vector<int>{7, 7, 7, 3});
  CHECK_EQUAL(split(*data, 0, 3, 40).train, whole.train);
  CHECK(split(*data, 0, 3, 8).train != split(*data, 0, 4, 8).train);
  const Split held = split(*data, 10, 3);
  std::vector<int32_t> before;
  for (int64_t size = 1; size <= 30; ++size) {
    const Split part = split(*data, 10, 3, size);
    CHECK_EQUAL(part.validation, held.validation);
    CHECK_EQUAL(static_cast<int64_t>(part.train.size()), size);
    CHECK(std::is_sorted(part.train.begin(), part.train.end()));
    CHECK(std::includes(held.train.begin(), held.train.end(), part.train.begin(), part.train.end()));
    CHECK(std::includes(part.train.begin(), part.train.end(), before.begin(), before.end()));
    before = part.train;
  }
  CHECK_THROWS({ split(*data, 10, 3, 31); }, "invalid-argument", {"30", "31"});
  CHECK_THROWS({ split(*data, 10, 3, -1); }, "invalid-argument", {"-1"});
}

TEST("the order of an epoch is frozen; the last, smaller batch is a batch like any other") {
  DataOrder order(3, 1, 7, 3);
  CHECK_EQUAL(order.updates_per_epoch(), 3);
  const auto batch = [&](int64_t step, uint64_t noise) {
    const auto b = order.batch(step, noise);
    return std::vector<int32_t>(b.begin(), b.end());
  };
  CHECK_EQUAL(batch(0, 2), std::vector<int32_t>{1, 5, 0});
  CHECK_EQUAL(batch(1, 2), std::vector<int32_t>{3, 6, 4});
  CHECK_EQUAL(batch(2, 2), std::vector<int32_t>{2});
  CHECK_EQUAL(batch(3, 2), std::vector<int32_t>{6, 4, 2});
  CHECK_EQUAL(batch(5, 2), std::vector<int32_t>{5});
}

TEST("any batch can be computed from its number alone") {
  DataOrder forward(1, 0, 100, 30), jumping(1, 0, 100, 30);
  std::vector<std::vector<int32_t>> all;
  for (int64_t step = 0; step < 40; ++step) {
    const auto b = forward.batch(step, 5);
    all.emplace_back(b.begin(), b.end());
  }
  for (const int64_t step : {39, 3, 38, 0, 17, 16, 4}) {
    jumping.batch(step, 6);  // another noise in between changes nothing
    const auto b = jumping.batch(step, 5);
    CHECK_EQUAL(std::vector<int32_t>(b.begin(), b.end()), all[static_cast<size_t>(step)]);
  }
}

TEST("each epoch visits every example once; seed, replicate, noise and epoch each change the order") {
  const auto epoch = [](uint64_t seed, uint32_t replicate, uint64_t noise, int64_t e) {
    DataOrder order(seed, replicate, 50, 8);
    std::vector<int32_t> all;
    for (int64_t i = 0; i < order.updates_per_epoch(); ++i) {
      const auto b = order.batch(e * order.updates_per_epoch() + i, noise);
      all.insert(all.end(), b.begin(), b.end());
    }
    return all;
  };
  const auto base = epoch(1, 0, 0, 0);
  auto sorted = base;
  std::sort(sorted.begin(), sorted.end());
  for (int32_t i = 0; i < 50; ++i) CHECK_EQUAL(sorted[static_cast<size_t>(i)], i);
  for (const auto& other : {epoch(2, 0, 0, 0), epoch(1, 1, 0, 0), epoch(1, 0, 1, 0), epoch(1, 0, 0, 1)})
    CHECK(other != base);
}

TEST("an order of nothing is refused, a batch larger than the set is the whole set") {
  CHECK_THROWS({ DataOrder(1, 0, 0, 3); }, "invalid-argument", {"0 examples"});
  CHECK_THROWS({ DataOrder(1, 0, 3, 0); }, "invalid-argument", {"batches of 0"});
  DataOrder order(1, 0, 5, 60);
  CHECK_EQUAL(order.updates_per_epoch(), 1);
  CHECK_EQUAL(order.batch(2, 0).size(), 5u);
  CHECK_THROWS({ order.batch(-1, 0); }, "invalid-argument", {"-1"});
}
