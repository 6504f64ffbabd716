// What a session is made of.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "cuda/cuda.h"
#include "exec/executor.h"
#include "train/average.h"
#include "train/batches.h"
#include "train/optimiser.h"
#include "train/schedule.h"

namespace lth {

struct SessionOptions {
  std::shared_ptr<const CompiledNetwork> network;
  DataOptions data;
  int64_t micro_batch = 0;  // examples of a batch that go through the network at once; 0: all
  OptimiserOptions optimiser;
  Schedule schedule;
  AverageOptions average;
  std::vector<double> mean, std;  // empty: x/255
  std::string device = "cpu";
  DeviceMode device_mode = DeviceMode::kDeterministic;  // of CUDA devices
  Dtype precision = Dtype::kFloat32;  // of weights, gradients, optimiser state, sums
  bool bf16 = false;                  // images between layers, and what convolutions multiply; with kFloat32 alone
  // kDirect is kAten where our kernels do not run; kAten on the CPU is for tests of that; kAutograd is the oracle.
  enum Executor { kDirect, kAten, kAutograd } executor = kDirect;
  Choice choice = {};  // of kDirect on the CPU
  int threads = 1;

  Normaliser normaliser() const;
};

const char* name_of(SessionOptions::Executor executor);

// Error("wrong-shape"), Error("unsupported"), Error("invalid-argument") where network, data and executor do not fit one
// another; what DataOptions say among themselves is for Batches to look at.
void check(const SessionOptions& options);

}  // namespace lth
