// The production executor for networks with convolutions on the CPU.
//
// The batch is cut into slices of fixed size: a stage takes one slice through as many layers as it can while they are in
// the core's cache, and ends where all slices must be known: at the statistics of batch norm. What is summed over the
// batch is summed inside the slices and then in the slices' order, so that no bit depends on the number of threads.
#include <functional>
#include <memory>

#include "exec/images/batch_norm.h"
#include "exec/images/convolution.h"
#include "exec/images/elementwise.h"
#include "exec/images/linear.h"
#include "exec/images/pooling.h"
#include "exec/images/values.h"

namespace lth {
namespace {

constexpr int64_t kSlice = 16;
// LibTorch reorders a convolution's weights in every call: large ones are worth more examples a call.
constexpr int64_t kSliceOfLargeWeights = 32;
constexpr int64_t kLargeWeights = 1 << 20;
constexpr int64_t kEvaluationBatch = 128;

int64_t slice_of(const CompiledNetwork& net) {
  int64_t largest = 0;
  for (const Operation& op : net.operations) {
    if (op.type == Operation::kConvolution) largest = std::max(largest, net.layout->parameters[op.weight].size);
  }
  return largest >= kLargeWeights ? kSliceOfLargeWeights : kSlice;
}

template <typename S>
class DirectConv final : public Executor {
  using R = Real<S>;
  using Value = typename Values<S>::Value;

 public:
  DirectConv(ParameterStore& store, Pool& pool, const LayerKernels<S>& images, const Kernels<R>& vectors,
             Normaliser normaliser, int64_t largest)
      : net_(*store.network),
        v_(store, pool, images, vectors, slice_of(net_), std::max(largest, kEvaluationBatch)),
        elementwise_(v_),
        pooling_(v_),
        linear_(v_),
        sums_(v_.most_slices),
        labels_(v_.capacity),
        losses_(v_.capacity) {
    plan_forward();
    plan_backward();
    for (size_t c = 0; c < normaliser.scale.size(); ++c) {
      for (int byte = 0; byte < 256; ++byte) {
        const R value = static_cast<R>(byte * normaliser.scale[c] + normaliser.shift[c]);
        S stored;
        images.narrow(&value, &stored, 1);
        pixels_.push_back(stored);
      }
    }
  }

  int64_t evaluation_batch() const override { return kEvaluationBatch; }

  BatchResult evaluate(const Batch& batch) override {
    c10::NoGradGuard no_grad;
    begin(batch);
    for (auto& norm : norms_) norm->use_running_statistics();
    run(evaluation_);
    return loss(nullptr);
  }

  void observe(const Batch& batch, const Statistics& statistics) override {
    c10::NoGradGuard no_grad;
    begin(batch);
    statistics_ = &statistics;
    run(forward_);
  }

  BatchResult train(const Batch& batch, const Statistics& statistics) override {
    c10::NoGradGuard no_grad;
    begin(batch);
    statistics_ = &statistics;
    run(forward_);
    v_.forget_gradients();
    Value& logits = v_.values[net_.output];
    const BatchResult result = loss(as<R>(logits.gradient));
    std::fill(logits.ready.begin(), logits.ready.end(), true);
    run(backward_);
    return result;
  }

 private:
  struct Stage {
    std::vector<std::function<void(int64_t slice)>> steps;  // for every slice, slices in parallel
    std::vector<std::function<void()>> joins;               // then once each
  };
  using Step = std::function<void(int64_t slice)>;

  static void end(std::vector<Stage>& stages, Stage& one) {
    if (!one.steps.empty() || !one.joins.empty()) stages.push_back(std::move(one));
    one = {};
  }

  void plan_forward() {
    Stage stage, all;
    for (const Operation& op : net_.operations) {
      if (op.type == Operation::kBatchNorm) {
        BatchNorm<S>* norm = norms_.emplace_back(std::make_unique<BatchNorm<S>>(v_, op, sums_)).get();
        const Step normalise = [norm](int64_t slice) { norm->normalise(slice); };
        if (norm->of_images()) {
          stage.steps.push_back([norm](int64_t slice) { norm->moments(slice); });
          stage.joins.push_back([this, norm] { norm->join_moments(*statistics_); });
          end(forward_, stage);
          stage.steps.push_back(normalise);
          all.steps.push_back(normalise);
        } else {
          stage.joins.push_back([this, norm] { norm->normalise_vectors(*statistics_); });
          end(forward_, stage);
          all.steps.push_back([norm](int64_t slice) { norm->normalise_columns(slice); });
        }
        continue;
      }
      const Step step = forward_of(op);
      stage.steps.push_back(step);
      all.steps.push_back(step);
    }
    end(forward_, stage);
    end(evaluation_, all);
  }

  // Everything but batch norm.
  Step forward_of(const Operation& op) {
    switch (op.type) {
      case Operation::kConvolution: {
        Convolution<S>* conv = convolutions_.emplace_back(std::make_unique<Convolution<S>>(v_, op)).get();
        for (int64_t task = 0; task < conv->conversions(); ++task) conversions_.push_back([conv, task] { conv->convert(task); });
        return [conv](int64_t slice) { conv->forward(slice); };
      }
      case Operation::kLinear: return [this, &op](int64_t slice) { linear_.forward(op, slice); };
      case Operation::kRelu: return [this, &op](int64_t slice) { elementwise_.relu(op, slice); };
      case Operation::kMaxPool: return [this, &op](int64_t slice) { pooling_.max_pool(op, slice); };
      case Operation::kGlobalPool: return [this, &op](int64_t slice) { pooling_.global_pool(op, slice); };
      default: return [this, &op](int64_t slice) { elementwise_.add(op, slice); };
    }
  }

  void plan_backward() {
    Stage stage;
    auto norm_after = norms_.rbegin();
    auto convolution_after = convolutions_.rbegin();
    for (auto at = net_.operations.rbegin(); at != net_.operations.rend(); ++at) {
      const Operation& op = *at;
      switch (op.type) {
        case Operation::kBatchNorm: {
          BatchNorm<S>* norm = (norm_after++)->get();
          if (norm->of_images()) {
            stage.steps.push_back([norm](int64_t slice) { norm->gate(slice); });
            stage.joins.push_back([norm] { norm->join_gate(); });
            end(backward_, stage);
            stage.steps.push_back([norm](int64_t slice) { norm->normalise_backward(slice); });
          } else {
            stage.joins.push_back([norm] { norm->normalise_vectors_backward(); });
            end(backward_, stage);
          }
          break;
        }
        case Operation::kConvolution: {
          Convolution<S>* conv = (convolution_after++)->get();
          stage.steps.push_back([conv](int64_t slice) { conv->backward(slice); });
          stage.joins.push_back([conv] { conv->join(); });
          break;
        }
        case Operation::kLinear:
          stage.steps.push_back([this, &op](int64_t slice) { linear_.backward(op, slice); });
          stage.joins.push_back([this, &op] { linear_.join(op); });
          break;
        case Operation::kRelu:
          stage.steps.push_back([this, &op](int64_t slice) { elementwise_.relu_backward(op, slice); });
          break;
        case Operation::kAdd:
          stage.steps.push_back([this, &op](int64_t slice) { elementwise_.add_backward(op, slice); });
          break;
        case Operation::kMaxPool:
          stage.steps.push_back([this, &op](int64_t slice) { pooling_.max_pool_backward(op, slice); });
          break;
        case Operation::kGlobalPool:
          stage.steps.push_back([this, &op](int64_t slice) { pooling_.global_pool_backward(op, slice); });
          break;
      }
    }
    end(backward_, stage);
  }

  void run(const std::vector<Stage>& stages) {
    for (const Stage& stage : stages) {
      if (!stage.steps.empty()) {
        v_.parallel(v_.slices, [&](int64_t slice) {
          for (const Step& step : stage.steps) step(slice);
        });
      }
      for (const auto& join : stage.joins) join();
    }
  }

  void begin(const Batch& batch) {
    v_.begin(static_cast<int64_t>(batch.examples.size()));
    v_.pool.parallel(static_cast<int64_t>(conversions_.size()), [&](int64_t task) { conversions_[task](); });
    for (int64_t n = 0; n < v_.n; ++n) labels_[n] = batch.data->labels[batch.examples[n]];
    v_.parallel(v_.slices, [&](int64_t slice) { gather(batch, slice); });
  }

  // Bytes (C,H,W) of a slice's examples -> normalised (H,W,C).
  void gather(const Batch& batch, int64_t slice) {
    const Dataset& from = *batch.data;
    const Value& in = v_.values[net_.input];
    std::vector<uint8_t> cropped(batch.crops.empty() ? 0 : in.features);
    S* to = v_.image(net_.input, slice);
    for (int64_t n = v_.first(slice); n < v_.first(slice) + v_.examples(slice); ++n, to += in.features) {
      const uint8_t* bytes = from.images.data() + static_cast<int64_t>(batch.examples[n]) * in.features;
      if (!batch.crops.empty()) {
        augment_image(bytes, from.shape[0], from.shape[1], from.shape[2], batch.crops[n], cropped.data());
        bytes = cropped.data();
      }
      for (int64_t c = 0; c < in.channels; ++c) {
        const S* table = pixels_.data() + 256 * c;
        for (int64_t p = 0; p < in.places; ++p) to[p * in.channels + c] = table[bytes[c * in.places + p]];
      }
    }
  }

  BatchResult loss(R* dlogits) {
    BatchResult result;
    const Value& logits = v_.values[net_.output];
    result.correct = v_.vectors.cross_entropy(as<R>(logits.columns), v_.all_lanes, logits.features, v_.n, labels_.data(),
                                            R(1) / static_cast<R>(v_.n), losses_.data(), dlogits);
    for (int64_t n = 0; n < v_.n; ++n) result.loss += static_cast<double>(losses_[n]);
    return result;
  }

  const CompiledNetwork& net_;
  Values<S> v_;
  Elementwise<S> elementwise_;
  Pooling<S> pooling_;
  Linear<S> linear_;
  std::vector<typename BatchNorm<S>::Sums> sums_;  // per slice
  // In the order of their operations.
  std::vector<std::unique_ptr<BatchNorm<S>>> norms_;
  std::vector<std::unique_ptr<Convolution<S>>> convolutions_;
  std::vector<std::function<void()>> conversions_;  // of all convolutions' weights
  std::vector<Stage> forward_, backward_, evaluation_;
  std::vector<S> pixels_;  // (channels, 256): the normalised bytes
  std::vector<int32_t> labels_;
  std::vector<R> losses_;
  const Statistics* statistics_ = nullptr;
};

template <typename S>
std::unique_ptr<Executor> make(ParameterStore& store, Pool& pool, Isa isa, const Kernels<Real<S>>& vectors,
                               Normaliser normaliser, int64_t largest) {
  return std::make_unique<DirectConv<S>>(store, pool, layer_kernels(isa, static_cast<const S*>(nullptr)), vectors,
                                         std::move(normaliser), largest);
}

}  // namespace

std::unique_ptr<Executor> direct_conv(ParameterStore& store, Pool& pool, Isa isa, bool bf16, Normaliser normaliser,
                                      int64_t largest) {
  if (store.dtype == Dtype::kFloat64) return make<double>(store, pool, isa, kernels_f64(), std::move(normaliser), largest);
  if (bf16) return make<Bf16>(store, pool, isa, kernels_f32(isa), std::move(normaliser), largest);
  return make<float>(store, pool, isa, kernels_f32(isa), std::move(normaliser), largest);
}

}  // namespace lth
