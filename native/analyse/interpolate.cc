#include "analyse/interpolate.h"

#include <cmath>
#include <cstring>
#include <string>

#include "core/error.h"

namespace lth {
namespace {

template <typename T>
void fill(const Arena& from, const Arena& to, double alpha, const Arena& out, int64_t count) {
  const T *a = reinterpret_cast<const T*>(from.data()), *b = reinterpret_cast<const T*>(to.data());
  T* c = reinterpret_cast<T*>(out.data());
  // std::lerp is exact where a and b agree, which (1 - alpha) * a + alpha * b is not.
  for (int64_t i = 0; i < count; ++i) {
    c[i] = static_cast<T>(std::lerp(static_cast<double>(a[i]), static_cast<double>(b[i]), alpha));
  }
}

}  // namespace

std::shared_ptr<const Snapshot> interpolate(const Snapshot& a, const Snapshot& b, double alpha) {
  if (!a.layout->same_places(*b.layout)) {
    throw Error("wrong-shape", "[interpolate] the snapshots belong to different networks");
  }
  if (a.dtype != b.dtype) throw Error("wrong-shape", "[interpolate] one snapshot is fp32, the other fp64");
  if (!(alpha >= 0 && alpha <= 1)) {
    throw Error("invalid-argument",
                "[interpolate] alpha: expected a number between 0 and 1 but received " + std::to_string(alpha));
  }
  auto out = std::make_shared<Snapshot>();
  out->layout = a.layout;
  out->dtype = a.dtype;
  out->step = alpha == 1 ? b.step : a.step;
  const auto between = [&](const Arena& from, const Arena& to) {
    Arena point(from.size());
    if (alpha == 0 || alpha == 1) {
      // Copied, because arithmetic would lose the sign of a zero.
      std::memcpy(point.data(), (alpha == 0 ? from : to).data(), from.size());
    } else if (a.dtype == Dtype::kFloat32) {
      fill<float>(from, to, alpha, point, a.layout->arena);
    } else {
      fill<double>(from, to, alpha, point, a.layout->arena);
    }
    return point;
  };
  out->parameters = between(a.parameters, b.parameters);
  if (a.average.size() && b.average.size()) out->average = between(a.average, b.average);
  return out;
}

}  // namespace lth
