// The production executor on the CPU: explicit forward and backward over buffers that are planned once.
//
// Legend: N batch, C features in, K features out, L lanes (N padded to kLane). Activations are (features, L) with
// the batch innermost; the inputs of linear layers are kept as rows (N, features) too, for the gradient of the
// weight. Tasks are cut by shape alone and write disjoint outputs, so results do not depend on the thread count.
#include <algorithm>
#include <cstring>
#include <memory>

#include "core/error.h"
#include "exec/executor.h"
#include "exec/linear_layer.h"

namespace lth {
namespace {

constexpr int64_t kExamplesPerTask = 16;
constexpr int64_t kEvaluationBatch = 256;
constexpr int64_t kLine = 64;  // bytes of a cache

template <typename T>
class DirectCpu final : public Executor {
 public:
  DirectCpu(ParameterStore& store, Pool& pool, const Kernels<T>& kernels, const SparseKernels<T>& sparse,
            const Choice& choice, Normaliser normaliser, int64_t largest)
      : store_(store),
        pool_(pool),
        kernels_(kernels),
        choice_(choice),
        normaliser_(std::move(normaliser)),
        net_(*store.network),
        largest_(largest) {
    const int64_t training = padded(largest), lanes = std::max(training, kEvaluationBatch);
    buffers_.resize(net_.values.size());
    for (size_t i = 0; i < buffers_.size(); ++i) {
      Buffer& b = buffers_[i];
      b.features = net_.values[i].features;
      b.row_stride = padded(b.features);
      b.columns = Arena(bytes(b.features * lanes));
    }
    for (const Operation& op : net_.operations) {
      if (op.type == Operation::kLinear) buffers_[op.inputs[0]].feeds_linear = true;
    }
    for (size_t i = 0; i < buffers_.size(); ++i) {
      Buffer& b = buffers_[i];
      const bool is_input = static_cast<int>(i) == net_.input;
      // The gather writes rows before it transposes them, also in an evaluation.
      if (b.feeds_linear || is_input) b.rows = Arena(bytes(b.row_stride * (is_input ? lanes : training)));
      if (!is_input) b.gradient = Arena(bytes(b.features * training));
    }
    for (const Operation& op : net_.operations) {
      auto& one = layers_.emplace_back();
      if (op.type != Operation::kLinear) continue;
      one = std::make_unique<LinearLayer<T>>(store, pool, kernels, sparse, linear_costs(choice.tuning, static_cast<const T*>(nullptr)),
                                             op, op.inputs[0] != net_.input);
    }
    labels_.resize(lanes);
    losses_.resize(lanes);
  }

  int64_t evaluation_batch() const override { return kEvaluationBatch; }

  std::vector<KernelChoice> kernels() override {
    use_masks(largest_, Wanted::kForUpdate);
    std::vector<KernelChoice> all;
    for (const auto& one : layers_) {
      if (one) all.push_back(one->kernels());
    }
    return all;
  }

  BatchResult evaluate(const Batch& batch) override {
    use_masks(static_cast<int64_t>(batch.examples.size()), Wanted::kForUpdate);
    forward(batch, /*training=*/false);
    return loss(nullptr);
  }

  // Networks with batch norm are direct_conv's.
  void observe(const Batch&, const Statistics&) override {}

  BatchResult train(const Batch& batch, const Statistics&, Wanted wanted) override {
    use_masks(static_cast<int64_t>(batch.examples.size()), wanted);
    forward(batch, /*training=*/true);
    for (Buffer& b : buffers_) b.gradient_ready = false;
    Buffer& logits = buffers_[net_.output];
    const BatchResult result = loss(gradient(logits));
    logits.gradient_ready = true;
    for (size_t i = net_.operations.size(); i-- > 0;) backward(net_.operations[i], layers_[i].get());
    return result;
  }

 private:
  struct Buffer {
    int64_t features = 0;
    int64_t row_stride = 0;  // features padded to kLane
    Arena columns;           // (features, L)
    Arena rows;              // (N, row_stride)
    Arena gradient;          // (features, L)
    bool feeds_linear = false;
    bool rows_wanted = false;     // by a linear layer whose weights' gradients are the dense product's
    bool gradient_ready = false;  // a reader has already written its share
  };

  static size_t bytes(int64_t elements) { return static_cast<size_t>(elements) * sizeof(T); }
  static T* as(const Arena& arena) { return reinterpret_cast<T*>(arena.data()); }
  static T* columns(const Buffer& b) { return as(b.columns); }
  static T* rows(const Buffer& b) { return as(b.rows); }
  static T* gradient(const Buffer& b) { return as(b.gradient); }
  T* parameter(at::Tensor& flat, int index) {
    return flat.data_ptr<T>() + net_.layout->parameters[index].offset;
  }

  // Bytes of the examples -> normalised rows (N, C) and columns (C, L); lanes beyond N are zeros.
  void gather(const Batch& batch) {
    const Dataset& data = *batch.data;
    Buffer& input = buffers_[net_.input];
    const int64_t features = input.features, stride = input.row_stride;
    const int64_t channels = static_cast<int64_t>(normaliser_.scale.size()), plane = features / channels;
    for (int64_t n = 0; n < n_; ++n) labels_[n] = batch.label(n);
    pool_.parallel(tasks_for(lanes_, kExamplesPerTask), [&](int64_t task) {
      const int64_t n0 = task * kExamplesPerTask, n1 = std::min(lanes_, n0 + kExamplesPerTask);
      // Rows of the data set lie anywhere in memory: all of them are on their way before the first is read.
      for (int64_t n = n0; n < std::min(n1, n_); ++n) {
        const uint8_t* image = batch.image(n);
        for (int64_t at = 0; at < features; at += kLine) __builtin_prefetch(image + at);
      }
      std::vector<uint8_t> cropped(batch.crops.empty() ? 0 : features);
      for (int64_t n = n0; n < n1; ++n) {
        T* row = rows(input) + n * stride;
        if (n >= n_) {
          std::memset(row, 0, bytes(features));
          continue;
        }
        const uint8_t* image = batch.image(n);
        if (!batch.crops.empty()) {
          augment_image(image, data.shape[0], data.shape[1], data.shape[2], batch.crops[n], cropped.data());
          image = cropped.data();
        }
        for (int64_t c = 0; c < channels; ++c) {
          kernels_.normalise(image + c * plane, row + c * plane, plane, static_cast<T>(normaliser_.scale[c]),
                             static_cast<T>(normaliser_.shift[c]));
        }
      }
      kernels_.transpose(rows(input) + n0 * stride, stride, columns(input) + n0, lanes_, n1 - n0, features);
    });
  }

  void forward(const Batch& batch, bool training) {
    n_ = static_cast<int64_t>(batch.examples.size());
    smoothing_ = static_cast<T>(batch.smoothing);
    lanes_ = padded(n_);
    gather(batch);
    for (size_t i = 0; i < net_.operations.size(); ++i) {
      const Operation& op = net_.operations[i];
      if (op.type == Operation::kLinear) {
        linear(op, *layers_[i], training);
      } else {
        elementwise(op, training);
      }
    }
  }

  // Chooses the products for the masks at hand and a batch of so many examples.
  void use_masks(int64_t examples, Wanted wanted) {
    if (masks_ != store_.masks || wanted != wanted_) {
      masks_ = nullptr;  // if this throws, the next call begins anew
      for (const auto& one : layers_) {
        if (one) one->set_mask(choice_.products, wanted == Wanted::kForUpdate);
      }
      store_.want_gradients(wanted == Wanted::kAll);
      masks_ = store_.masks;
      wanted_ = wanted;
    }
    for (Buffer& b : buffers_) b.rows_wanted = false;
    for (size_t i = 0; i < layers_.size(); ++i) {
      if (!layers_[i]) continue;
      layers_[i]->begin(examples);
      if (layers_[i]->reads_rows()) buffers_[net_.operations[i].inputs[0]].rows_wanted = true;
    }
  }

  // Each task also writes its rows of y for the next layer.
  void linear(const Operation& op, LinearLayer<T>& layer, bool training) {
    Buffer& out = buffers_[op.output];
    layer.forward(columns(buffers_[op.inputs[0]]), columns(out), [&](int64_t k0, int64_t k1) {
      if (training) write_rows(out, k0, k1);
    });
  }

  void elementwise(const Operation& op, bool training) {
    Buffer& out = buffers_[op.output];
    over_rows(pool_, out.features, [&](int64_t k0, int64_t k1) {
      const int64_t at = k0 * lanes_, count = (k1 - k0) * lanes_;
      const T* first = columns(buffers_[op.inputs[0]]) + at;
      T* to = columns(out) + at;
      if (op.type == Operation::kRelu) {
        kernels_.relu(first, to, count);
      } else {
        kernels_.add(first, columns(buffers_[op.inputs[1]]) + at, to, count);
        for (size_t i = 2; i < op.inputs.size(); ++i) {
          kernels_.add(to, columns(buffers_[op.inputs[i]]) + at, to, count);
        }
      }
      if (training) write_rows(out, k0, k1);
    });
  }

  void write_rows(Buffer& b, int64_t k0, int64_t k1) {
    if (b.rows_wanted) {
      kernels_.transpose(columns(b) + k0 * lanes_, lanes_, rows(b) + k0, b.row_stride, k1 - k0, lanes_);
    }
  }

  BatchResult loss(T* dlogits) {
    BatchResult result;
    result.correct = kernels_.cross_entropy(columns(buffers_[net_.output]), lanes_, buffers_[net_.output].features, n_,
                                            labels_.data(), T(1) / static_cast<T>(n_), dlogits ? smoothing_ : T(0), losses_.data(), dlogits);
    for (int64_t n = 0; n < n_; ++n) result.loss += losses_[n];
    return result;
  }

  void backward(const Operation& op, LinearLayer<T>* layer) {
    Buffer& out = buffers_[op.output];
    if (layer) return linear_backward(op, *layer);
    const int64_t count = out.features * lanes_;
    if (op.type == Operation::kRelu) kernels_.relu_backward(columns(out), gradient(out), count);
    for (int input : op.inputs) {
      Buffer& in = buffers_[input];
      if (input == net_.input) continue;
      if (in.gradient_ready) {
        kernels_.add(gradient(in), gradient(out), gradient(in), count);
      } else {
        std::memcpy(gradient(in), gradient(out), bytes(count));
        in.gradient_ready = true;
      }
    }
  }

  void linear_backward(const Operation& op, LinearLayer<T>& layer) {
    Buffer& in = buffers_[op.inputs[0]];
    Buffer& out = buffers_[op.output];
    T* dy = gradient(out);
    if (op.fused_relu) kernels_.relu_backward(columns(out), dy, out.features * lanes_);
    layer.backward(dy, columns(in), rows(in), in.row_stride, gradient(in), in.gradient_ready);
    if (op.inputs[0] != net_.input) in.gradient_ready = true;
  }

  ParameterStore& store_;
  Pool& pool_;
  const Kernels<T>& kernels_;
  const Choice choice_;
  const Normaliser normaliser_;
  const CompiledNetwork& net_;
  const int64_t largest_;  // training batch
  std::vector<Buffer> buffers_;
  std::shared_ptr<const Masks> masks_;  // what the products were chosen for, with
  Wanted wanted_ = Wanted::kForUpdate;
  std::vector<std::unique_ptr<LinearLayer<T>>> layers_;  // by operation; null but for linear ones
  T smoothing_ = 0;  // of the batch at hand
  std::vector<int32_t> labels_;
  std::vector<T> losses_;
  int64_t n_ = 0, lanes_ = 0;
};

}  // namespace

std::unique_ptr<Executor> direct_cpu(ParameterStore& store, Pool& pool, Isa isa, const Choice& choice, Normaliser normaliser,
                                     int64_t largest) {
  if (store.dtype == Dtype::kFloat32) {
    return std::make_unique<DirectCpu<float>>(store, pool, kernels_f32(isa), sparse_kernels(isa, static_cast<const float*>(nullptr)),
                                              choice, std::move(normaliser), largest);
  }
  return std::make_unique<DirectCpu<double>>(store, pool, kernels_f64(), sparse_kernels(isa, static_cast<const double*>(nullptr)),
                                               choice, std::move(normaliser), largest);
}

}  // namespace lth
