#include "train/session_options.h"

#include "core/error.h"
#include "core/shape.h"

namespace lth {

Normaliser SessionOptions::normaliser() const {
  const size_t channels = data.train->mean.size();
  Normaliser n;
  for (size_t c = 0; c < channels; ++c) {
    const double m = mean.empty() ? 0 : mean[c], deviation = std.empty() ? 1 : std[c];
    n.scale.push_back(1 / (255 * deviation));
    n.shift.push_back(-m / deviation);
  }
  return n;
}

const char* name_of(SessionOptions::Executor executor) {
  switch (executor) {
    case SessionOptions::kDirect: return "direct";
    case SessionOptions::kAten: return "aten";
    default: return "autograd";
  }
}

void check(const SessionOptions& o) {
  check(o.choice.tuning);
  const NetworkSpec& spec = o.network->spec;
  for (const Dataset* data : {o.data.train.get(), o.data.test.get()}) {
    if (!data) continue;
    if (data->shape != spec.input) {
      throw Error("wrong-shape", "[session] network " + spec.name + " reads examples of shape " +
                                     text_of(spec.input) + ", the data set has " + text_of(data->shape));
    }
    if (data->classes > spec.classes) {
      throw Error("wrong-shape", "[session] network " + spec.name + " has " + std::to_string(spec.classes) +
                                     " classes, the data set has " + std::to_string(data->classes));
    }
  }
  if (o.bf16 && !o.network->convolutional()) {
    throw Error("unsupported", "[session] precision bf16 is for networks with convolutions, and " + spec.name +
                                   " has none: use fp32");
  }
  if (o.bf16 && o.executor == SessionOptions::kAutograd) {
    throw Error("unsupported", "[session] executor autograd knows fp32 and fp64 alone, not bf16");
  }
  const bool has_a_choice = o.executor == SessionOptions::kDirect && o.device == "cpu";
  if (o.choice.products != Products::kAuto && !has_a_choice) {
    throw Error("unsupported", "[session] kernels dense and sparse are for executor direct on the CPU: use auto");
  }
  if (o.device_mode == DeviceMode::kFast && o.device == "cpu") {
    throw Error("unsupported", "[session] deviceMode fast is for CUDA devices: on the CPU the bits are always the same");
  }
  const size_t channels = o.data.train->mean.size();
  if ((!o.mean.empty() || !o.std.empty()) && (o.mean.size() != channels || o.std.size() != channels)) {
    throw Error("wrong-shape", "[session] normalise wants " + std::to_string(channels) + " means and deviations, has " +
                                   std::to_string(o.mean.size()) + " and " + std::to_string(o.std.size()));
  }
}

}  // namespace lth
