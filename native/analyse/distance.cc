#include "analyse/distance.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "core/bitmask.h"
#include "core/error.h"

namespace lth {
namespace {

struct Norms {
  double a = 0, b = 0, difference = 0;  // squared

  void operator+=(const Norms& other) {
    a += other.a;
    b += other.b;
    difference += other.difference;
  }
};

template <typename T>
Norms norms_of(const ParameterSpec& p, const T* a, const T* b, const Masks& masks) {
  Norms n;
  for_each_bit(masks.words, p.offset, p.size, [&](int64_t i) {
    const double x = a[i], y = b[i];
    n.a += x * x;
    n.b += y * y;
    n.difference += (x - y) * (x - y);
  });
  return n;
}

// The two sides of the rhombus of unit vectors a/|a| and b/|b|, squared.
struct Diagonals {
  double across = 0, along = 0;

  void operator+=(const Diagonals& other) {
    across += other.across;
    along += other.along;
  }
};

template <typename T>
Diagonals diagonals_of(const ParameterSpec& p, const T* a, const T* b, const Masks& masks, const Norms& norms) {
  const double length_a = std::sqrt(norms.a), length_b = std::sqrt(norms.b);
  Diagonals d;
  for_each_bit(masks.words, p.offset, p.size, [&](int64_t i) {
    const double x = a[i] / length_a, y = b[i] / length_b;
    d.across += (x - y) * (x - y);
    d.along += (x + y) * (x + y);
  });
  return d;
}

// Kahan's formula: arccos loses half the digits near 0 and 180 degrees, and would call identical vectors 1e-6 apart.
Distance distance_of(std::string name, const Norms& norms, const Diagonals& d) {
  const bool zero = norms.a == 0 || norms.b == 0;
  const double angle = 2 * std::atan2(std::sqrt(d.across), std::sqrt(d.along)) * (180 / std::numbers::pi);
  return {std::move(name), std::sqrt(norms.difference),
          zero ? std::numeric_limits<double>::quiet_NaN() : std::min(angle, 180.0)};
}

template <typename T>
Distances distance_in(const Snapshot& sa, const Snapshot& sb, const Masks& masks, Scope scope) {
  const T *a = reinterpret_cast<const T*>(sa.parameters.data()), *b = reinterpret_cast<const T*>(sb.parameters.data());
  std::vector<const ParameterSpec*> counted;
  for (const ParameterSpec& p : masks.layout->parameters) {
    if (p.prunable || (scope == Scope::kAll && p.trainable)) counted.push_back(&p);
  }
  Norms all;
  std::vector<Norms> each;
  for (const ParameterSpec* p : counted) {
    each.push_back(norms_of(*p, a, b, masks));
    const Norms& n = each.back();
    if (!std::isfinite(n.a) || !std::isfinite(n.b)) {
      throw Error("diverged", "[distance] " + p->name + " holds a weight that is not finite");
    }
    all += n;
  }
  Distances out;
  Diagonals diagonals;
  for (size_t i = 0; i < counted.size(); ++i) {
    const ParameterSpec& p = *counted[i];
    out.layers.push_back(distance_of(p.name, each[i], diagonals_of(p, a, b, masks, each[i])));
    diagonals += diagonals_of(p, a, b, masks, all);
  }
  out.total = distance_of("", all, diagonals);
  return out;
}

}  // namespace

Distances distance(const Snapshot& a, const Snapshot& b, const Masks& masks, Scope scope) {
  if (!a.layout->same_places(*masks.layout) || !b.layout->same_places(*masks.layout)) {
    throw Error("wrong-shape", "[distance] the snapshots and the masks belong to different networks");
  }
  if (a.dtype != b.dtype) throw Error("wrong-shape", "[distance] one snapshot is fp32, the other fp64");
  return a.dtype == Dtype::kFloat32 ? distance_in<float>(a, b, masks, scope)
                                    : distance_in<double>(a, b, masks, scope);
}

}  // namespace lth
