// Magnitude pruning: exact counts, ties by position, nested masks.
#include <algorithm>
#include <cmath>
#include <limits>

#include "analyse/prune.h"
#include "check.h"
#include "core/bitmask.h"
#include "networks.h"

using namespace lth;
using test::drawn;
using test::lenet;
using test::small;
using test::values;

namespace {

PruneOptions global(double fraction, int levels = 1) {
  PruneOptions o;
  o.fraction = fraction;
  o.levels = levels;
  return o;
}

PruneOptions layerwise(double fraction, std::map<std::string, double> rates, int levels = 1) {
  PruneOptions o = global(fraction, levels);
  o.layerwise = true;
  o.rates = std::move(rates);
  return o;
}

int64_t prunable_left(const Masks& m) {
  int64_t n = 0;
  for (size_t i = 0; i < m.remaining.size(); ++i) n += m.layout->parameters[i].prunable ? m.remaining[i] : 0;
  return n;
}

// The definition, written as plainly as can be: sort all remaining (|w|, place), remove the first floor(p n).
template <typename T>
std::vector<uint64_t> plainly(const Masks& masks, const Snapshot& s, int64_t count) {
  std::vector<std::pair<T, int64_t>> all;
  for (const ParameterSpec& p : masks.layout->parameters) {
    for (int64_t i = p.offset; p.prunable && i < p.offset + p.size; ++i) {
      if (bit_at(masks.words, i)) all.push_back({std::fabs(values<T>(s.parameters)[i]), i});
    }
  }
  std::sort(all.begin(), all.end());
  std::vector<uint64_t> words = masks.words;
  for (int64_t i = 0; i < count; ++i) clear_bit(words, all[static_cast<size_t>(i)].second);
  return words;
}

}  // namespace

TEST("counts are the floor of the decimal's product, not of the nearest double's") {
  CHECK_EQUAL(pruned_count(0.2, 5), 1);
  CHECK_EQUAL(pruned_count(0.29, 100), 29);  // 0.29 * 100 is 28.999999999999996 in doubles
  CHECK_EQUAL(pruned_count(0.07, 100), 7);   // 7.000000000000001
  CHECK_EQUAL(pruned_count(0.57, 100), 57);
  CHECK_EQUAL(pruned_count(0.2, 4), 0);
  CHECK_EQUAL(pruned_count(0.2, 0), 0);
  CHECK_EQUAL(pruned_count(1.0 / 3, 3), 1);
  // Against whole-number arithmetic: p = a / 10^d.
  int64_t power = 1;
  for (int d = 1; d <= 6; ++d) {
    power *= 10;
    for (const int64_t a : {int64_t{1}, power / 5, power / 3 + 1, power / 2, power * 9 / 10, power - 1}) {
      if (a == 0 || a >= power) continue;
      const double p = std::stod("0." + std::string(static_cast<size_t>(d) - std::to_string(a).size(), '0') +
                                 std::to_string(a));
      for (const int64_t n :
           {1, 2, 3, 5, 7, 10, 99, 100, 1000, 266200, 999999, 1000000, 20018880, 25502912}) {
        CHECK_EQUAL(pruned_count(p, n), a * n / power);
      }
    }
  }
}

TEST(
    "LeNet-300-100 with a half-rate output layer has 51.28, 21.07 and 10.83 % at levels 3, 7, 10 (paper "
    "1.4)") {
  const auto layout = compile(lenet({300, 100}))->layout;
  const Snapshot w = drawn<float>(layout, 1);
  const PruneOptions rates = layerwise(0.2, {{"fc3.weight", 0.1}});
  auto masks = std::make_shared<const Masks>(all_ones(layout));
  for (int level = 1; level <= 10; ++level) {
    masks = prune(*masks, w, rates);
    const double density = std::round(1e4 * static_cast<double>(prunable_left(*masks)) / 266200) / 100;
    if (level == 3) CHECK_EQUAL(density, 51.28);
    if (level == 7) CHECK_EQUAL(density, 21.07);
    if (level == 10) CHECK_EQUAL(density, 10.83);
    // One-shot to the same level removes the same counts, and with the same weights the same places.
    CHECK(prune(all_ones(layout), w, layerwise(0.2, {{"fc3.weight", 0.1}}, level))->words == masks->words);
  }
}

TEST("what goes is what the plain definition removes: float and double, global, level after level") {
  const auto layout = compile(lenet({40, 30}, {1, 9, 9}, 5))->layout;
  const auto follow = [&]<typename T>(T) {
    auto masks = std::make_shared<const Masks>(all_ones(layout));
    for (int level = 0; level < 12; ++level) {
      const Snapshot s = drawn<T>(layout, 100 + static_cast<uint64_t>(level));
      // Coarse values, so that ties are everywhere; both signs.
      for (int64_t i = 0; i < layout->arena; ++i) {
        T& w = values<T>(s.parameters)[i];
        if (level % 2) w = static_cast<T>(std::round(w * 4) / 4);
      }
      const auto next = prune(*masks, s, global(0.3));
      CHECK(next->words == plainly<T>(*masks, s, pruned_count(0.3, prunable_left(*masks))));
      CHECK(is_nested(*next, *masks));
      CHECK(!is_nested(*masks, *next));
      masks = next;
    }
  };
  follow(float());
  follow(double());
}

TEST("counts are exact in one pool and in each layer") {
  const auto layout = small();
  const Snapshot s = drawn<float>(layout, 4);
  CHECK_EQUAL(prunable_left(*prune(all_ones(layout), s, global(0.2))), 235 - 47);
  const auto m = prune(all_ones(layout), s, layerwise(0.2, {{"fc3.weight", 0.5}}));
  CHECK_EQUAL(m->remaining, std::vector<int64_t>{140, 7, 34, 6, 9, 3});  // 175, 42 and 18 weights
  CHECK_EQUAL(prunable_left(*prune(all_ones(layout), s, global(0.2, 3))), 235 - 47 - 37 - 30);
}

TEST("ties go by position, the lower first, and -0 is 0") {
  const auto layout = small();
  Snapshot s = drawn<float>(layout, 4);
  for (int64_t i = 0; i < layout->arena; ++i) values<float>(s.parameters)[i] = i % 2 ? 0.0f : -0.0f;
  const auto m = prune(all_ones(layout), s, global(0.2));
  for (int64_t i = 0; i < 175; ++i) CHECK_EQUAL(bit_at(m->words, i), i >= 47);
  CHECK_EQUAL(m->remaining[2], 42);
  for (int64_t i = 0; i < layout->arena; ++i) values<float>(s.parameters)[i] = i % 2 ? 1.0f : -1.0f;
  CHECK(prune(all_ones(layout), s, global(0.2))->words == m->words);
}

TEST("subnormal and huge weights are ranked, and pruned or unprunable ones are not looked at") {
  const auto layout = small();
  Snapshot s = drawn<double>(layout, 4);
  double* w = values<double>(s.parameters);
  w[3] = 5e-324;
  w[9] = -1e308;
  const auto one = prune(all_ones(layout), s, global(1.0 / 235));
  CHECK(!bit_at(one->words, 3) && bit_at(one->words, 9));
  w[3] = std::numeric_limits<double>::quiet_NaN();                            // gone already
  w[layout->parameters[1].offset] = std::numeric_limits<double>::infinity();  // a bias
  CHECK_EQUAL(prunable_left(*prune(*one, s, global(0.5))), 117);
}

TEST("a weight that is not finite is \"diverged\", and says where") {
  const auto layout = small();
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    Snapshot s = drawn<float>(layout, 4);
    values<float>(s.parameters)[layout->parameters[2].offset + 5] = bad;
    CHECK_THROWS({ prune(all_ones(layout), s, global(0.2)); }, "diverged", {"fc2.weight", "element 5"});
    CHECK_THROWS({ prune(all_ones(layout), s, layerwise(0.2, {})); }, "diverged",
                 {"fc2.weight", "element 5"});
  }
}

TEST("pruning goes down to nothing left without going wrong") {
  const auto layout = small();
  const Snapshot s = drawn<float>(layout, 4);
  auto masks = std::make_shared<const Masks>(all_ones(layout));
  for (int level = 0; level < 60; ++level) masks = prune(*masks, s, global(0.9));
  CHECK_EQUAL(prunable_left(*masks), 1);  // floor(0.9 * 1) is 0
  CHECK_EQUAL(prunable_left(*prune(all_ones(layout), s, global(0.2, 100000))), 4);
}

TEST("bits outside the prunable weights never change: ones for other parameters, zeros in gaps") {
  const auto layout = small();
  const Masks ones = all_ones(layout);
  const auto m = prune(ones, drawn<float>(layout, 4), global(0.7));
  for (const ParameterSpec& p : layout->parameters) {
    const int64_t padded = (p.size + 63) / 64 * 64;
    CHECK_EQUAL(count_bits(ones.words, p.offset, padded), p.size);
    CHECK_EQUAL(count_bits(m->words, p.offset + padded - 64, 64),
                count_bits(m->words, p.offset + padded - 64, p.size - (padded - 64)));
    if (!p.prunable) CHECK_EQUAL(count_bits(m->words, p.offset, padded), p.size);
  }
}

TEST("impossible options are refused in words") {
  const auto layout = small();
  const Snapshot s = drawn<float>(layout, 4);
  const Masks ones = all_ones(layout);
  for (const double bad : {0.0, 1.0, -0.2, 1.5, std::numeric_limits<double>::quiet_NaN()}) {
    CHECK_THROWS({ prune(ones, s, global(bad)); }, "invalid-argument", {"fraction", "between 0 and 1"});
    CHECK_THROWS({ prune(ones, s, layerwise(0.2, {{"fc1.weight", bad}})); }, "invalid-argument",
                 {"fc1.weight"});
  }
  CHECK_THROWS({ prune(ones, s, global(0.2, 0)); }, "invalid-argument", {"levels"});
  CHECK_THROWS({ prune(ones, s, layerwise(0.2, {{"fc1", 0.1}})); }, "invalid-argument",
               {"\"fc1\"", "fc1.weight, fc2.weight, fc3.weight"});
  CHECK_THROWS({ prune(ones, s, layerwise(0.2, {{"fc1.bias", 0.1}})); }, "invalid-argument",
               {"\"fc1.bias\""});
  PruneOptions both = global(0.2);
  both.rates = {{"fc1.weight", 0.1}};
  CHECK_THROWS({ prune(ones, s, both); }, "invalid-argument", {"layerwise"});
}

TEST("weights and masks of different networks are refused, also where their sizes agree") {
  const auto layout = small(), twin = compile(lenet({7, 6}, {5, 5, 1}, 3))->layout;
  CHECK(is_nested(all_ones(twin), all_ones(layout)));  // another object, the same places
  const auto other = compile(lenet({7, 6}, {1, 24, 1}, 3))->layout;
  CHECK_EQUAL(other->arena, layout->arena);
  CHECK_THROWS({ prune(all_ones(layout), drawn<float>(other, 1), global(0.2)); }, "wrong-shape",
               {"different networks"});
  CHECK_THROWS({ is_nested(all_ones(layout), all_ones(other)); }, "wrong-shape", {"different networks"});
}

TEST("pruned entries that are not +0 are counted, in weights and optimiser state; -0 is not +0") {
  const auto layout = small();
  Snapshot s = drawn<float>(layout, 4);
  const auto masks = prune(all_ones(layout), s, global(0.4));
  const auto zero_pruned = [&](const Arena& arena) {
    for (const ParameterSpec& p : layout->parameters) {
      for (int64_t i = p.offset; i < p.offset + p.size; ++i) {
        if (!bit_at(masks->words, i)) values<float>(arena)[i] = 0;
      }
    }
  };
  const int64_t pruned = prunable_left(all_ones(layout)) - prunable_left(*masks);
  CHECK_EQUAL(pruned_but_not_zero(*masks, s), pruned);
  zero_pruned(s.parameters);
  CHECK_EQUAL(pruned_but_not_zero(*masks, s), 0);
  s.optimiser.push_back({"momentum", drawn<float>(layout, 5).parameters});
  CHECK_EQUAL(pruned_but_not_zero(*masks, s), pruned);
  zero_pruned(s.optimiser[0].values);
  CHECK_EQUAL(pruned_but_not_zero(*masks, s), 0);
  const ParameterSpec& first = layout->parameters[0];
  int64_t at = first.offset;
  while (bit_at(masks->words, at)) ++at;
  values<float>(s.parameters)[at] = -0.0f;
  CHECK_EQUAL(pruned_but_not_zero(*masks, s), 1);
  CHECK_EQUAL(pruned_but_not_zero(all_ones(layout), s), 0);
  const auto other = compile(lenet({7, 6}, {1, 24, 1}, 3))->layout;
  CHECK_THROWS({ pruned_but_not_zero(all_ones(other), s); }, "wrong-shape", {"different networks"});
}

TEST("masks come from packed bits by name") {
  const auto layout = small();
  const auto wanted = prune(all_ones(layout), drawn<float>(layout, 4), global(0.4));
  std::map<std::string, std::span<const uint8_t>> bits;
  for (const ParameterSpec& p : layout->parameters) {
    if (!p.prunable) continue;
    bits[p.name] = {reinterpret_cast<const uint8_t*>(wanted->words.data() + p.offset / 64),
                    static_cast<size_t>((p.size + 7) / 8)};
  }
  const auto masks = masks_from_bits(layout, bits);
  CHECK(masks->words == wanted->words);
  CHECK(masks->remaining == wanted->remaining);
  auto lacking = bits, extra = bits, brief = bits;
  lacking.erase("fc2.weight");
  CHECK_THROWS({ masks_from_bits(layout, lacking); }, "invalid-argument", {"fc2.weight"});
  extra["fc1.bias"] = bits["fc1.weight"];
  CHECK_THROWS({ masks_from_bits(layout, extra); }, "invalid-argument", {"not prunable"});
  brief["fc1.weight"] = brief["fc1.weight"].first(21);
  CHECK_THROWS({ masks_from_bits(layout, brief); }, "wrong-shape", {"fc1.weight", "21", "22"});
}

TEST("scores: exactly `remaining` stay, the lowest go or the highest, with their sign, ties by position") {
  const auto layout = compile(lenet({40, 30}, {1, 9, 9}, 5))->layout;
  Snapshot s = drawn<double>(layout, 9);
  for (int64_t i = 0; i < layout->arena; ++i) {
    double& x = values<double>(s.parameters)[i];
    x = std::round(x * 8) / 8;  // -0 among them
  }
  std::vector<std::pair<double, int64_t>> all;
  for (const ParameterSpec& p : layout->parameters) {
    for (int64_t i = p.offset; p.prunable && i < p.offset + p.size; ++i) all.push_back({values<double>(s.parameters)[i], i});
  }
  const int64_t size = static_cast<int64_t>(all.size());
  for (const bool highest : {false, true}) {
    std::stable_sort(all.begin(), all.end(), [&](const auto& a, const auto& b) {
      return a.first != b.first ? (highest ? a.first > b.first : a.first < b.first) : a.second < b.second;
    });
    std::shared_ptr<const Masks> before;
    for (const int64_t remaining : {size, size - 1, size / 2, size / 10, int64_t{1}, int64_t{0}}) {
      const auto m = prune_by_scores(all_ones(layout), s, remaining, highest);
      CHECK_EQUAL(prunable_left(*m), remaining);
      std::vector<uint64_t> words = all_ones(layout).words;
      for (int64_t i = 0; i < size - remaining; ++i) clear_bit(words, all[static_cast<size_t>(i)].second);
      CHECK(m->words == words);
      if (before) {
        CHECK(is_nested(*m, *before));
        CHECK(prune_by_scores(*before, s, remaining, highest)->words == m->words);
      }
      before = m;
    }
  }
}

TEST("scores that cannot be used are refused") {
  const auto layout = small();
  Snapshot s = drawn<double>(layout, 4);
  CHECK_THROWS({ prune_by_scores(all_ones(layout), s, 236, false); }, "invalid-argument", {"0 to 235", "236"});
  CHECK_THROWS({ prune_by_scores(all_ones(layout), drawn<float>(layout, 4), 9, false); }, "wrong-shape", {"fp64"});
  CHECK_THROWS({ prune_by_scores(all_ones(compile(lenet({8}))->layout), s, 9, false); }, "wrong-shape", {"networks"});
  values<double>(s.parameters)[layout->parameters[2].offset + 5] = std::numeric_limits<double>::infinity();
  CHECK_THROWS({ prune_by_scores(all_ones(layout), s, 9, false); }, "diverged", {"fc2.weight", "score", "element 5"});
}

TEST("the largest weights go where that is asked for") {
  const auto layout = small();
  const Snapshot s = drawn<float>(layout, 4);
  Snapshot turned = drawn<double>(layout, 4);
  for (int64_t i = 0; i < layout->arena; ++i) {
    values<double>(turned.parameters)[i] = std::fabs(values<float>(s.parameters)[i]);
  }
  PruneOptions o = global(0.2);
  o.highest = true;
  const auto m = prune(all_ones(layout), s, o);
  CHECK_EQUAL(prunable_left(*m), 235 - 47);
  CHECK(m->words == prune_by_scores(all_ones(layout), turned, 235 - 47, true)->words);
}
