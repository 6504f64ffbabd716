// The table of costs: its grid, the fit of measurements to it, its name.
#include "kernels/tuning.h"

#include <cmath>
#include <limits>
#include <set>
#include <vector>

#include "check.h"
#include "close.h"
#include "numbers.h"

using namespace lth;
using test::Numbers;

namespace {

// A sample that costs explain but for a relative error.
ProductSample sample(const ProductWork& w, const FittedCosts& c, double error = 0) {
  const double cost = w.number * (w.runs * c.of_run + w.places * c.of_place) + w.split * c.of_split;
  return {w, cost * (1 + error) / w.dense};
}

double cost_of(const ProductWork& w, const FittedCosts& c) { return sample(w, c).ratio; }

std::vector<ProductWork> works(Numbers& numbers, bool with_split) {
  std::vector<ProductWork> all;
  for (int i = 0; i < 14; ++i) {
    const double places = static_cast<double>(1 + numbers.below(1000)), number = static_cast<double>(100 + numbers.below(100000));
    all.push_back({number * places * (2 + static_cast<double>(numbers.below(30))), number,
                   std::ceil(places / static_cast<double>(1 + numbers.below(8))), places,
                   with_split ? number * static_cast<double>(numbers.below(100)) : 0});
  }
  return all;
}

}  // namespace

TEST("costs lie on a grid of 2^(1/4) in three digits, near what they were, and stay there") {
  std::set<double> grid;
  for (double x = 1.0 / 64; x < 1024; x *= 1.003) {
    const double y = on_grid(x);
    grid.insert(y);
    CHECK(y / x < 1.1 && x / y < 1.1);
    CHECK_EQUAL(on_grid(y), y);
  }
  CHECK_EQUAL(static_cast<int64_t>(grid.size()), 16 * 4 + 1);
  for (double nothing : {0.0, -1.0, 1e-9, -std::numeric_limits<double>::infinity(), std::nan("")}) CHECK_EQUAL(on_grid(nothing), 0.0);
  CHECK_EQUAL(on_grid(1e300), 1020.0);
  CHECK_EQUAL(on_grid(std::numeric_limits<double>::infinity()), 1020.0);
}

TEST("a fit explains samples of any costs, with and without noise, and gives no cost below 0") {
  Numbers numbers(23);
  for (int round = 0; round < 300; ++round) {
    const bool with_split = round % 2;
    const FittedCosts truth = {static_cast<double>(numbers.below(80)) / 10, static_cast<double>(5 + numbers.below(40)) / 10,
                               with_split ? static_cast<double>(numbers.below(200)) / 10 : 0};
    const double noise = round % 3 == 0 ? 0 : 0.05;
    std::vector<ProductSample> samples;
    for (const ProductWork& w : works(numbers, with_split)) {
      samples.push_back(sample(w, truth, noise * (static_cast<double>(numbers.below(201)) - 100) / 100));
    }
    const FittedCosts found = fit(samples);
    CHECK(found.of_run >= 0 && found.of_place >= 0 && found.of_split >= 0);
    if (!with_split) CHECK_EQUAL(found.of_split, 0.0);
    // What the choice is made by is the sum, and its parts may not be told apart.
    double off = 0;
    for (const ProductSample& one : samples) off += std::fabs(cost_of(one.work, found) / one.ratio - 1);
    CHECK(off / static_cast<double>(samples.size()) < 0.25);
  }
}

TEST("many samples without noise give back the usual costs exactly, others nearly") {
  Numbers numbers(230);
  std::vector<ProductWork> all;
  for (int i = 0; i < 100; ++i) {
    for (const ProductWork& w : works(numbers, true)) all.push_back(w);
  }
  for (const FittedCosts& truth : {FittedCosts{3, 2, 8}, FittedCosts{1, 2.5, 4}, FittedCosts{8, 1.5, 1}}) {
    std::vector<ProductSample> samples;
    for (const ProductWork& w : all) samples.push_back(sample(w, truth));
    const FittedCosts found = fit(samples);
    CHECK_CLOSE(found.of_run, truth.of_run, 0.05 * truth.of_run);
    CHECK_CLOSE(found.of_place, truth.of_place, 0.05 * truth.of_place);
    CHECK_CLOSE(found.of_split, truth.of_split, 0.05 * truth.of_split);
  }
}

TEST("no samples, or such that say nothing, give finite costs") {
  for (const std::vector<ProductSample>& samples :
       {std::vector<ProductSample>{}, std::vector<ProductSample>{{{1, 1, 0, 0, 0}, 1}}, std::vector<ProductSample>{{{1, 1, 1, 1, 1}, 1}}}) {
    const FittedCosts c = fit(samples);
    for (double x : {c.of_run, c.of_place, c.of_split}) CHECK(std::isfinite(x) && x >= 0);
  }
}

TEST("the built-in table has no name, every other one its own; costs that are no numbers are refused") {
  CHECK_EQUAL(name_of(Tuning{}), std::string());
  std::set<std::string> names;
  for (ProductCosts Tuning::*part : {&Tuning::fp32, &Tuning::bf16, &Tuning::linear, &Tuning::wide}) {
    for (double ProductCosts::*cost : {&ProductCosts::entry_of_run, &ProductCosts::entry_of_place, &ProductCosts::gradient_of_vector,
                                       &ProductCosts::gradient_of_band, &ProductCosts::split_of_vector}) {
      Tuning t;
      t.*part.*cost += 0.25;
      check(t);
      CHECK_EQUAL(static_cast<int64_t>(name_of(t).size()), int64_t{16});
      names.insert(name_of(t));
      for (double wrong : {-1.0, -0.0, 2e6, std::nan(""), std::numeric_limits<double>::infinity()}) {
        t.*part.*cost = wrong;
        CHECK_THROWS({ check(t); }, "invalid-argument", {"[tuning] "});
      }
    }
  }
  CHECK_EQUAL(static_cast<int64_t>(names.size()), int64_t{20});
  Tuning spoilt;
  spoilt.bf16.entry_of_place = -1;
  CHECK_THROWS({ check(spoilt); }, "invalid-argument", {"[tuning] bf16.entryOfPlace: ", "-1"});
  // Frozen: fingerprints of runs hold it.
  Tuning t;
  t.fp32 = {2, 2, 1.68, 2.83, 8};
  CHECK_EQUAL(name_of(t), std::string("e2a56bdf3c3da67d"));
  // Wide layers that cost what others do are no word of their own: there were tables before.
  t.linear.entry_of_run = 2;
  const std::string of_linear = name_of(t);
  t.wide = t.linear;
  CHECK(name_of(t) != of_linear);
}
