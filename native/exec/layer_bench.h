// What the three products of one layer cost, dense and sparse, and what the machine could do at most. Both sides are those
// of an update (images/convolution.h, sparse_linear.h), timed in turn, and must agree.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "core/snapshot.h"
#include "network/network.h"

namespace lth {

struct LayerBenchOptions {
  int64_t batch = 128;
  bool bf16 = false;
  int threads = 1;
  int64_t rounds = 7;     // samples of each side
  double sample = 0.005;  // seconds that one lasts at least
};

struct ProductTimes {
  // Of one product, each the mean of a sample. `sparse` is empty where there is no sparse one of so many weights.
  std::vector<double> dense, sparse;
  // Bytes that must be read or written at least: what is multiplied and what comes out, once each.
  double dense_bytes = 0, sparse_bytes = 0;
  double difference = 0;  // the largest between both sides, where the largest value of the dense one is 1
};

struct LayerTimes {
  int64_t weights = 0, remaining = 0;
  // Of each of the three products: multiply-adds x 2 of all weights, and of those that are left, at places inside.
  double dense_operations = 0, sparse_operations = 0;
  ProductTimes forward, weight_gradient;
  std::optional<ProductTimes> input_gradient;  // not of a layer that reads the examples
};

struct MachineLimits {
  double fp32 = 0, bf16 = 0;  // operations a second on so many threads; bf16: 0 where the CPU has no instruction for it
  double bandwidth = 0;       // bytes a second of out = a + b over arrays that no cache holds, three arrays counted
};

// `stopping` is asked between samples; nothing is returned where it says yes.
using Stopping = std::function<bool()>;

// Of a network's only layer with weights. Error("invalid-argument") where there are more or none, Error("wrong-shape") where
// the masks are another network's, Error("unsupported") for a linear layer in bf16, Error("native") where dense and sparse products do not agree.
std::optional<LayerTimes> time_layer(std::shared_ptr<const CompiledNetwork> network, std::shared_ptr<const Masks> masks,
                                     const LayerBenchOptions& options, const Stopping& stopping);

std::optional<MachineLimits> measure_limits(int threads, const Stopping& stopping);

}  // namespace lth
