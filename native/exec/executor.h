// Forward and backward of one batch. Two kinds give the same numbers (design: contract 12): `direct` computes every
// gradient explicitly, `autograd` asks LibTorch's autograd and is the oracle.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/pool.h"
#include "data/augment.h"
#include "data/dataset.h"
#include "data/dropout.h"
#include "exec/store.h"
#include "kernels/kernels.h"
#include "kernels/tuning.h"

namespace lth {

// x -> x * scale + shift per channel, on bytes.
struct Normaliser {
  std::vector<double> scale, shift;
};

struct Batch {
  const Dataset* data = nullptr;
  std::span<const int32_t> examples;  // rows of the data set
  std::span<const Crop> crops;        // one per example, or none: the images as they are
  std::optional<DropoutNoise> dropout = {};  // none: nothing is dropped
  double smoothing = 0;  // of labels
  // Of a batch that was read for itself: (N, features) and (N), in the order of the examples. Null: in the data set, by row.
  const uint8_t* images = nullptr;
  const int32_t* labels = nullptr;

  const uint8_t* image(int64_t n) const {
    return images ? images + n * data->features : data->images.data() + static_cast<int64_t>(examples[n]) * data->features;
  }
  int32_t label(int64_t n) const { return labels ? labels[n] : data->labels[examples[n]]; }
};

// What a batch does to the running statistics of normalisation.
struct Statistics {
  enum { kLayers, kLeave, kAverage } how = kLayers;
  int64_t averaged = 0;  // kAverage: batches that the running statistics are the mean of already

  // running = (1 - m) * running + m * batch
  double momentum(double of_layer) const {
    switch (how) {
      case kLayers: return of_layer;
      case kLeave: return 0;
      case kAverage: break;
    }
    return 1 / static_cast<double>(averaged + 1);
  }
};

struct BatchResult {
  double loss = 0;  // sum over the examples, not the mean; of a training batch, with the auxiliary heads'
  int64_t correct = 0;
};

// How a layer's products are made in an update.
struct KernelChoice {
  std::string layer;
  bool sparse_forward, sparse_input_gradient, sparse_weight_gradient;
  bool has_input_gradient;  // not of a layer that reads the examples
};

// Which products may be sparse: where that is cheaper, none, or all that can be.
enum class Products { kAuto, kDense, kSparse };

// By what each product is chosen.
struct Choice {
  Products products = Products::kAuto;
  Tuning tuning = {};  // of kAuto
};

class Executor {
 public:
  virtual ~Executor() = default;
  // Of the layers that have a choice, with the masks at hand.
  virtual std::vector<KernelChoice> kernels() { return {}; }
  // Gradients of the mean loss over the batch go to the store: those that an update needs, which are not those of pruned
  // weights, or all.
  enum class Wanted { kForUpdate, kAll };
  virtual BatchResult train(const Batch& batch, const Statistics& statistics, Wanted wanted) = 0;
  // The running statistics move as in `train`; nothing else changes.
  virtual void observe(const Batch& batch, const Statistics& statistics) = 0;
  virtual BatchResult evaluate(const Batch& batch) = 0;
  // Examples that one evaluate call takes at most.
  virtual int64_t evaluation_batch() const = 0;
};

// Our kernels on the CPU. `largest` is the largest training batch.
std::unique_ptr<Executor> direct_cpu(ParameterStore& store, Pool& pool, Isa isa, const Choice& choice, Normaliser normaliser,
                                     int64_t largest);
// The same for networks with convolutions; bf16: images are kept and multiplied in it, weights, their gradients and
// everything that is summed stay in fp32.
std::unique_ptr<Executor> direct_conv(ParameterStore& store, Pool& pool, Isa isa, bool bf16, const Choice& choice,
                                      Normaliser normaliser, int64_t largest);
struct AtenOptions {
  bool bf16 = false;        // as above
  bool our_kernels = true;  // of images, where the device has some, which is CUDA in bf16
  int64_t largest = 1;      // training batch: what has room for one has for as many examples of an evaluation
};
// Explicit forward and backward through ATen: any device, any dtype. In bf16 gradients of weights that cuDNN makes are rounded to
// it, and what an update of ours makes of pictures is what `observe` and `evaluate` make of them within rounding.
std::unique_ptr<Executor> direct_aten(ParameterStore& store, const AtenOptions& options, Normaliser normaliser);
// LibTorch autograd: any device, any dtype.
std::unique_ptr<Executor> autograd(ParameterStore& store, Normaliser normaliser);

}  // namespace lth
