#include "kernels/tuning.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <vector>

#include "core/error.h"

namespace lth {
namespace {

constexpr size_t kCosts = 3;
using Row = std::array<double, kCosts>;

// What samples cannot tell apart (a few bands among hundreds of vectors) stays near what is usual, or each measurement would
// give it another share: for each cost one more sample says so.
constexpr Row kUsual = {3, 2, 8};

// Least squares of rows * c = 1, and of c / kUsual = 1, over the costs whose bit is set in `chosen`, by Gauss.
// The matrix is positive definite.
Row solve(std::span<const Row> rows, unsigned chosen) {
  double m[kCosts][kCosts + 1] = {};
  for (size_t i = 0; i < kCosts; ++i) {
    if (!(chosen >> i & 1)) {
      m[i][i] = 1;
      continue;
    }
    for (const Row& row : rows) {
      for (size_t j = 0; j < kCosts; ++j) m[i][j] += chosen >> j & 1 ? row[i] * row[j] : 0;
      m[i][kCosts] += row[i];
    }
    m[i][i] += 1 / (kUsual[i] * kUsual[i]);
    m[i][kCosts] += 1 / kUsual[i];
  }
  for (size_t i = 0; i < kCosts; ++i) {
    for (size_t r = 0; r < kCosts; ++r) {
      if (r == i) continue;
      const double factor = m[r][i] / m[i][i];
      for (size_t j = i; j <= kCosts; ++j) m[r][j] -= factor * m[i][j];
    }
  }
  Row c;
  for (size_t i = 0; i < kCosts; ++i) c[i] = m[i][kCosts] / m[i][i];
  return c;
}

}  // namespace

std::string name_of(const Tuning& tuning) {
  if (tuning == Tuning{}) return "";
  // FNV-1a of the numbers' bits.
  uint64_t hash = 0xcbf29ce484222325ull;
  for (const TuningPart& part : kTuningParts) {
    // A table from before wide layers had costs of their own keeps its name.
    if (part.costs == &Tuning::wide && tuning.wide == tuning.linear) continue;
    for (const TuningCost& cost : kTuningCosts) {
      const auto bits = std::bit_cast<uint64_t>((tuning.*part.costs).*cost.value);
      for (int byte = 0; byte < 8; ++byte) hash = (hash ^ (bits >> (8 * byte) & 0xff)) * 0x100000001b3ull;
    }
  }
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
  return text;
}

void check(const Tuning& tuning) {
  for (const TuningPart& part : kTuningParts) {
    for (const TuningCost& cost : kTuningCosts) {
      const double value = (tuning.*part.costs).*cost.value;
      if (value >= 0 && value <= 1e6 && !std::signbit(value)) continue;
      throw Error("invalid-argument", std::string("[tuning] ") + part.name + "." + cost.name +
                                          ": expected a number between 0 and 1000000 but received " + std::to_string(value));
    }
  }
}

FittedCosts fit(std::span<const ProductSample> samples) {
  std::vector<Row> rows;
  for (const auto& [w, ratio] : samples) {
    const double cost = ratio * w.dense;
    rows.push_back({w.number * w.runs / cost, w.number * w.places / cost, w.split / cost});
  }
  // There are few costs: all sets of those that are not 0 are tried. What no sample has is 0.
  unsigned known = 0;
  for (size_t i = 0; i < kCosts; ++i) {
    if (std::any_of(rows.begin(), rows.end(), [i](const Row& row) { return row[i] > 0; })) known |= 1u << i;
  }
  Row best = {};
  double least = std::numeric_limits<double>::infinity();
  for (unsigned chosen = 1; chosen < 1u << kCosts; ++chosen) {
    if (chosen & ~known) continue;
    const Row c = solve(rows, chosen);
    if (std::any_of(c.begin(), c.end(), [](double x) { return !(x >= 0); })) continue;
    double error = 0;
    const auto add = [&](double off) { error += off * off; };
    for (const Row& row : rows) add(row[0] * c[0] + row[1] * c[1] + row[2] * c[2] - 1);
    for (size_t i = 0; i < kCosts; ++i) add(c[i] / kUsual[i] - 1);
    if (error < least) {
      least = error;
      best = c;
    }
  }
  return {best[0], best[1], best[2]};
}

double on_grid(double x) {
  constexpr double kStepsPerDoubling = 4, kLowest = -6, kHighest = 10;
  if (!(x > 0)) return 0;
  const double power = std::round(std::log2(x) * kStepsPerDoubling) / kStepsPerDoubling;
  if (power < kLowest) return 0;
  // In decimals, so that no library's last digit of a power decides about bits.
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", std::exp2(std::min(power, kHighest)));
  return std::strtod(text, nullptr);
}

}  // namespace lth
