// The production executor for networks with convolutions on the CPU.
//
// The batch is cut into slices of kLane examples: a stage takes one slice through as many layers as it can while they are
// in the core's cache, and ends where all slices must be known: at the statistics of batch norm, and at linear layers,
// which read their weights once for all slices. What is summed over the batch is summed inside the slices and then in the
// slices' order, or by one task, so that no bit depends on the number of threads.
#include <functional>
#include <memory>
#include <utility>

#include "exec/images/batch_norm.h"
#include "exec/images/concat.h"
#include "exec/images/convolution.h"
#include "exec/images/dropout.h"
#include "exec/images/elementwise.h"
#include "exec/images/gradients.h"
#include "exec/images/linear.h"
#include "exec/images/pooling.h"
#include "exec/images/turned.h"
#include "exec/images/values.h"

namespace lth {
namespace {

// Examples that an evaluation takes at once: fewer of a network whose values would take many GiB. A function of the network
// alone, for losses are added up batch by batch.
int64_t evaluation_batch_of(const CompiledNetwork& net) {
  constexpr int64_t kMost = 128, kElements = int64_t{1} << 31;
  int64_t elements = 0, batch = kMost;
  for (const auto& value : net.values) elements += value.features;
  while (batch > kLane && batch > kElements / elements) batch /= 2;
  return batch;
}

template <typename S>
class DirectConv final : public Executor {
  using R = Real<S>;
  using Value = typename Values<S>::Value;

 public:
  DirectConv(ParameterStore& store, Pool& pool, const LayerKernels<S>& images, const SparseKernels<S>& sparse,
             const SparseKernels<R>& sparse_vectors, const Kernels<R>& vectors, const Choice& choice, Normaliser normaliser,
             int64_t largest)
      : net_(*store.network),
        sparse_(sparse),
        sparse_vectors_(sparse_vectors),
        choice_(choice),
        largest_(largest),
        evaluation_batch_(evaluation_batch_of(net_)),
        v_(store, pool, images, vectors, std::max(largest, evaluation_batch_), largest),
        gradients_(v_),
        turned_(v_),
        elementwise_(v_),
        pooling_(v_),
        flatten_(v_),
        concat_(v_),
        sums_(v_.training_slices),
        labels_(v_.capacity),
        cropped_(v_.most_slices * v_.values[net_.input].features),
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

  int64_t evaluation_batch() const override { return evaluation_batch_; }

  std::vector<KernelChoice> kernels() override {
    use_masks(Wanted::kForUpdate);
    std::vector<KernelChoice> all;
    auto conv = convolutions_.begin();
    auto linear = linears_.begin();
    for (const Operation& op : net_.operations) {
      if (op.type == Operation::kConvolution) all.push_back((*conv++)->kernels());
      if (op.type != Operation::kLinear) continue;
      (*linear)->begin(largest_);
      all.push_back((*linear++)->kernels());
    }
    return all;
  }

  BatchResult evaluate(const Batch& batch) override {
    begin(batch, Wanted::kForUpdate);
    for (auto& norm : norms_) norm->use_running_statistics();
    run(evaluation_);
    return loss(net_.output, 1, nullptr);
  }

  void observe(const Batch& batch, const Statistics& statistics) override {
    begin(batch, Wanted::kForUpdate);
    statistics_ = &statistics;
    run(forward_);
  }

  BatchResult train(const Batch& batch, const Statistics& statistics, Wanted wanted) override {
    begin(batch, wanted);
    statistics_ = &statistics;
    run(forward_);
    run(pack_back_);
    BatchResult result = loss_and_gradient(net_.output, 1);
    for (const auto& one : net_.auxiliary) result.loss += one.weight * loss_and_gradient(one.value, one.weight).loss;
    run(backward_);
    return result;
  }

 private:
  struct Stage {
    std::vector<std::function<void(int64_t slice)>> steps;  // for every slice, slices in parallel
    std::vector<std::function<void()>> joins;               // then once each
  };
  using Step = std::function<void(int64_t slice)>;

  void end(std::vector<Stage>& stages, Stage& one) {
    if (!one.steps.empty() || !one.joins.empty()) stages.push_back(std::move(one));
    one = {};
    turned_.end_stage();
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
          if (!op.auxiliary) all.steps.push_back(normalise);
        } else {
          stage.joins.push_back([this, norm] { norm->normalise_vectors(*statistics_); });
          end(forward_, stage);
          if (!op.auxiliary) all.steps.push_back([norm](int64_t slice) { norm->normalise_columns(slice); });
        }
        continue;
      }
      if (op.type == Operation::kLinear) {
        const LinearCosts costs = linear_costs(choice_.tuning, static_cast<const R*>(nullptr));
        Linear<S>* linear = linears_.emplace_back(std::make_unique<Linear<S>>(v_, sparse_vectors_, costs, op)).get();
        stage.joins.push_back([linear] { linear->forward(); });
        end(forward_, stage);
        if (op.auxiliary) continue;
        all.joins.push_back([linear] { linear->forward(); });
        end(evaluation_, all);
        continue;
      }
      const Step step = forward_of(op);
      stage.steps.push_back(step);
      if (!op.auxiliary) all.steps.push_back(step);
    }
    end(forward_, stage);
    end(evaluation_, all);
  }

  // Everything but batch norm and linear layers.
  Step forward_of(const Operation& op) {
    switch (op.type) {
      case Operation::kConvolution: {
        const ProductCosts costs = convolution_costs(choice_.tuning, static_cast<const S*>(nullptr));
        Convolution<S>* conv = convolutions_.emplace_back(std::make_unique<Convolution<S>>(v_, turned_, sparse_, costs, op)).get();
        if (!op.fused_relu) return [conv](int64_t slice) { conv->forward(slice); };
        return [this, conv, &op](int64_t slice) {
          conv->forward(slice);
          elementwise_.relu_in_place(op, slice);
        };
      }
      case Operation::kDropout: {
        Dropout<S>* dropout = dropouts_.emplace_back(std::make_unique<Dropout<S>>(v_, op)).get();
        return [this, dropout](int64_t slice) { dropout->forward(slice, *batch_); };
      }
      case Operation::kRelu: return [this, &op](int64_t slice) { elementwise_.relu(op, slice); };
      case Operation::kMaxPool: return [this, &op](int64_t slice) { pooling_.max_pool(op, slice); };
      case Operation::kGlobalPool: return [this, &op](int64_t slice) { pooling_.global_pool(op, slice); };
      case Operation::kAveragePool: return [this, &op](int64_t slice) { pooling_.average_pool(op, slice); };
      case Operation::kConcat: return [this, &op](int64_t slice) { concat_.forward(op, slice); };
      case Operation::kFlatten: return [this, &op](int64_t slice) { flatten_.forward(op, slice); };
      default: return [this, &op](int64_t slice) { elementwise_.add(op, slice); };
    }
  }

  void plan_backward() {
    Stage stage;
    auto norm_after = norms_.rbegin();
    auto convolution_after = convolutions_.rbegin();
    auto linear_after = linears_.rbegin();
    auto dropout_after = dropouts_.rbegin();
    for (auto at = net_.operations.rbegin(); at != net_.operations.rend(); ++at) {
      const Operation& op = *at;
      switch (op.type) {
        case Operation::kBatchNorm: plan_backward(**norm_after++, op, stage); break;
        case Operation::kConvolution: plan_backward(**convolution_after++, op, stage); break;
        case Operation::kLinear: plan_backward(**linear_after++, stage); break;
        case Operation::kRelu:
        case Operation::kAdd:
          v_.values[op.output].image ? plan_elementwise_backward(op, stage) : plan_backward_of_vectors(op, stage);
          break;
        case Operation::kMaxPool: {
          const int dy = take_one(op.output, stage);
          plan_new_gradient(op, stage, [=, this, &op](int64_t slice, S* dx) {
            pooling_.max_pool_backward(op, slice, gradients_.at(dy, slice), dx);
          });
          gradients_.release(dy);
          break;
        }
        case Operation::kAveragePool: {
          const int dy = take_one(op.output, stage);
          plan_new_gradient(op, stage, [=, this, &op](int64_t slice, S* dx) {
            pooling_.average_pool_backward(op, gradients_.at(dy, slice), dx);
          });
          gradients_.release(dy);
          break;
        }
        case Operation::kConcat: plan_concat_backward(op, stage); break;
        case Operation::kDropout: plan_backward(**dropout_after++, op, stage); break;
        case Operation::kGlobalPool:
          plan_new_gradient(op, stage, [this, &op](int64_t slice, S* dx) { pooling_.global_pool_backward(op, slice, dx); });
          break;
        case Operation::kFlatten:
          plan_new_gradient(op, stage, [this, &op](int64_t slice, S* dx) { flatten_.backward(op, slice, dx); });
          break;
      }
    }
    end(backward_, stage);
    gradients_.make();
    turned_.make();
  }

  // make(slice, dx) writes the gradient of an operation's input, unless that is the network's.
  template <typename F>
  void plan_new_gradient(const Operation& op, Stage& stage, F&& make) {
    const int in = op.inputs[0];
    if (in == net_.input) return;
    const int dx = gradients_.acquire(in);
    stage.steps.push_back([=, this](int64_t slice) { make(slice, gradients_.at(dx, slice)); });
    gradients_.give(in, dx);
  }

  // Parts that lie in the whole have gradients that lie in its one.
  void plan_concat_backward(const Operation& op, Stage& stage) {
    if (!v_.values[op.output].image) {
      stage.steps.push_back([this, &op](int64_t slice) { concat_.backward_of_vectors(op, slice); });
      return;
    }
    const int dy = take_one(op.output, stage);
    const bool shared = !gradients_.mine_alone(dy);
    concat_.over_parts(op, [&](int part, int64_t channel) {
      if (part == net_.input) return;
      if (v_.lies_in(part, op.output, channel)) return gradients_.give(part, gradients_.part(dy, op.output, channel, shared));
      const int dx = gradients_.acquire(part);
      stage.steps.push_back([=, this](int64_t slice) {
        concat_.backward_of_image(part, channel, gradients_.at(dy, slice), gradients_.at(dx, slice));
      });
      gradients_.give(part, dx);
    });
    gradients_.release(dy);
  }

  void plan_backward(Dropout<S>& dropout, const Operation& op, Stage& stage) {
    if (!v_.values[op.output].image) {
      stage.steps.push_back([this, &dropout](int64_t slice) { dropout.backward_of_vectors(slice, *batch_); });
      return;
    }
    const int dy = take_one(op.output, stage), dx = to_write(dy, op.output);
    stage.steps.push_back([=, this, &dropout](int64_t slice) {
      dropout.backward_of_image(slice, *batch_, gradients_.at(dy, slice), gradients_.at(dx, slice));
    });
    gradients_.give(op.inputs[0], dx);
  }

  void plan_backward(Convolution<S>& conv, const Operation& op, Stage& stage) {
    conv.plan_backward();
    int dy = take_one(op.output, stage);
    if (op.fused_relu) {
      const int d = std::exchange(dy, to_write(dy, op.output));
      stage.steps.push_back([=, this, &op](int64_t slice) {
        elementwise_.relu_backward(op, slice, gradients_.at(d, slice), gradients_.at(dy, slice));
      });
    }
    stage.steps.push_back([=, this, &conv](int64_t slice) { conv.weight_gradient(slice, gradients_.at(dy, slice)); });
    stage.joins.push_back([&conv] { conv.join(); });
    plan_new_gradient(op, stage, [=, this, &conv](int64_t slice, S* dx) { conv.input_gradient(gradients_.at(dy, slice), dx); });
    gradients_.release(dy);
  }

  void plan_backward(Linear<S>& linear, Stage& stage) {
    stage.steps.push_back([&linear](int64_t slice) { linear.gate(slice); });
    stage.joins.push_back([&linear] { linear.backward(); });
    end(backward_, stage);
  }

  void plan_elementwise_backward(const Operation& op, Stage& stage) {
    const int dy = take_one(op.output, stage);
    if (op.type == Operation::kRelu) {
      const int dx = to_write(dy, op.output);
      stage.steps.push_back([=, this, &op](int64_t slice) {
        elementwise_.relu_backward(op, slice, gradients_.at(dy, slice), gradients_.at(dx, slice));
      });
      gradients_.give(op.inputs[0], dx);
    } else {
      for (size_t i = 1; i < op.inputs.size(); ++i) gradients_.share(dy);
      for (int input : op.inputs) gradients_.give(input, dy);
    }
  }

  void plan_backward_of_vectors(const Operation& op, Stage& stage) {
    stage.steps.push_back([this, &op](int64_t slice) {
      op.type == Operation::kRelu ? elementwise_.relu_backward_of_vectors(op, slice) : elementwise_.add_backward_of_vectors(op, slice);
    });
  }

  void plan_backward(BatchNorm<S>& norm, const Operation& op, Stage& stage) {
    if (!norm.of_images()) {
      stage.joins.push_back([&norm] { norm.normalise_vectors_backward(); });
      return end(backward_, stage);
    }
    std::vector<int> given = gradients_.take(op.output);
    while (given.size() > 2) add_last(given, op.output, stage);
    const int d = given[0], other = given.size() > 1 ? given[1] : -1;
    // Where there is nothing to do it is d itself.
    const int g = other >= 0 || op.fused_relu ? to_write(d, op.output) : d;
    stage.steps.push_back([=, this, &norm](int64_t slice) {
      norm.gate(slice, gradients_.at(d, slice), other >= 0 ? gradients_.at(other, slice) : nullptr, gradients_.at(g, slice));
    });
    stage.joins.push_back([&norm] { norm.join_gate(); });
    end(backward_, stage);
    if (other >= 0) gradients_.release(other);
    if (op.inputs.size() > 1) {
      gradients_.share(g);
      gradients_.give(op.inputs[1], g);
    }
    const int dx = to_write(g, op.inputs[0]);
    stage.steps.push_back(
        [=, this, &norm](int64_t slice) { norm.normalise_backward(slice, gradients_.at(g, slice), gradients_.at(dx, slice)); });
    gradients_.give(op.inputs[0], dx);
  }

  // The last two of the buffers become one.
  void add_last(std::vector<int>& given, int value, Stage& stage) {
    const int b = given.back();
    given.pop_back();
    const int a = given.back(), sum = to_write(a, value);
    given.back() = sum;
    stage.steps.push_back([=, this](int64_t slice) {
      elementwise_.add(gradients_.at(a, slice), gradients_.at(b, slice), gradients_.at(sum, slice), v_.values[value].elements);
    });
    gradients_.release(b);
  }

  // A value's whole gradient.
  int take_one(int value, Stage& stage) {
    std::vector<int> given = gradients_.take(value);
    while (given.size() > 1) add_last(given, value, stage);
    return given[0];
  }

  // Where an elementwise step that reads `buffer` for the last time writes: there, or to a new one if others still read it.
  int to_write(int buffer, int value) {
    if (gradients_.mine_alone(buffer)) return buffer;
    const int own = gradients_.acquire(value);
    gradients_.release(buffer);
    return own;
  }

  void run(const std::vector<Stage>& stages) {
    for (const Stage& stage : stages) {
      if (!stage.steps.empty()) {
        v_.over_slices([&](int64_t slice) {
          for (const Step& step : stage.steps) step(slice);
        });
      }
      for (const auto& join : stage.joins) join();
    }
  }

  void run(const std::vector<std::function<void()>>& tasks) {
    v_.pool.parallel(static_cast<int64_t>(tasks.size()), [&](int64_t task) { tasks[task](); });
  }

  // Chooses the products of the masks at hand, and what must be done to the weights before them.
  void use_masks(Wanted wanted) {
    if (masks_ == v_.store.masks && wanted == wanted_) return;
    masks_ = nullptr;  // if this throws, the next call begins anew
    for (const auto& linear : linears_) linear->set_mask(choice_.products, wanted == Wanted::kForUpdate);
    v_.store.want_gradients(wanted == Wanted::kAll);
    for (auto* tasks : {&narrow_, &pack_, &pack_back_}) tasks->clear();
    for (const auto& one : convolutions_) {
      Convolution<S>* conv = one.get();
      conv->set_mask(v_.store.masks->words, choice_.products, wanted == Wanted::kForUpdate);
      for (int64_t task = 0; task < conv->narrow_tasks(); ++task) narrow_.push_back([conv, task] { conv->narrow(task); });
      for (int64_t task = 0; task < conv->pack_tasks(); ++task) pack_.push_back([conv, task] { conv->pack(task); });
      for (int64_t task = 0; task < conv->pack_back_tasks(); ++task) pack_back_.push_back([conv, task] { conv->pack_back(task); });
    }
    masks_ = v_.store.masks;
    wanted_ = wanted;
  }

  void begin(const Batch& batch, Wanted wanted) {
    use_masks(wanted);
    batch_ = &batch;
    v_.begin(static_cast<int64_t>(batch.examples.size()));
    smoothing_ = static_cast<R>(batch.smoothing);
    for (const auto& linear : linears_) linear->begin(v_.n);
    run(narrow_);
    run(pack_);
    for (int64_t n = 0; n < v_.n; ++n) labels_[n] = batch.label(n);
    v_.pool.parallel(v_.slices, [&](int64_t slice) { gather(batch, slice); });
  }

  // Bytes (C,H,W) of a slice's examples -> normalised, as images are kept.
  void gather(const Batch& batch, int64_t slice) {
    const Dataset& from = *batch.data;
    const Value& in = v_.values[net_.input];
    uint8_t* const cropped = cropped_.data() + slice * in.features;
    S* to = v_.image(net_.input, slice);
    if (v_.examples(slice) < kLane || in.channels % kPack<S> != 0) std::memset(static_cast<void*>(to), 0, in.elements * sizeof(S));
    for (int64_t e = 0; e < v_.examples(slice); ++e) {
      const int64_t n = v_.first(slice) + e;
      const uint8_t* bytes = batch.image(n);
      if (!batch.crops.empty()) {
        augment_image(bytes, from.shape[0], from.shape[1], from.shape[2], batch.crops[n], cropped);
        bytes = cropped;
      }
      for (int64_t c = 0; c < in.channels; ++c) {
        const S* table = pixels_.data() + 256 * c;
        S* plane = to + c / kPack<S> * in.places * kCell<S> + e * kPack<S> + c % kPack<S>;
        for (int64_t p = 0; p < in.places; ++p) plane[p * kCell<S>] = table[bytes[c * in.places + p]];
      }
    }
  }

  // `weight`: of its gradient.
  BatchResult loss(int value, double weight, R* dlogits) {
    BatchResult result;
    const Value& logits = v_.values[value];
    result.correct = v_.vectors.cross_entropy(as<R>(logits.columns), v_.all_lanes, logits.features, v_.n, labels_.data(),
                                            static_cast<R>(weight) / static_cast<R>(v_.n), dlogits ? smoothing_ : R(0), losses_.data(), dlogits);
    for (int64_t n = 0; n < v_.n; ++n) result.loss += static_cast<double>(losses_[n]);
    return result;
  }

  BatchResult loss_and_gradient(int value, double weight) {
    Value& logits = v_.values[value];
    const BatchResult result = loss(value, weight, as<R>(logits.gradient));
    std::fill(logits.ready.begin(), logits.ready.end(), true);
    return result;
  }

  const CompiledNetwork& net_;
  const SparseKernels<S>& sparse_;
  const SparseKernels<R>& sparse_vectors_;
  const Choice choice_;
  const int64_t largest_;  // training batch
  R smoothing_ = 0;        // of the batch at hand
  const int64_t evaluation_batch_;
  Values<S> v_;
  ImageGradients<S> gradients_;
  TurnedImages<S> turned_;
  Elementwise<S> elementwise_;
  Pooling<S> pooling_;
  Flatten<S> flatten_;
  Concat<S> concat_;
  std::vector<typename BatchNorm<S>::Sums> sums_;  // per slice
  // In the order of their operations.
  std::vector<std::unique_ptr<BatchNorm<S>>> norms_;
  std::vector<std::unique_ptr<Convolution<S>>> convolutions_;
  std::vector<std::unique_ptr<Linear<S>>> linears_;
  std::vector<std::unique_ptr<Dropout<S>>> dropouts_;
  std::vector<std::function<void()>> narrow_, pack_, pack_back_;  // of all convolutions' weights: tasks
  std::vector<Stage> forward_, backward_, evaluation_;
  std::vector<S> pixels_;  // (channels, 256): the normalised bytes
  std::vector<int32_t> labels_;
  std::vector<uint8_t> cropped_;  // per slice: the example at hand
  std::vector<R> losses_;
  const Batch* batch_ = nullptr;  // at hand
  const Statistics* statistics_ = nullptr;
  std::shared_ptr<const Masks> masks_;  // what the products were chosen for
  Wanted wanted_ = Wanted::kForUpdate;
};

template <typename S>
std::unique_ptr<Executor> make(ParameterStore& store, Pool& pool, Isa isa, const Kernels<Real<S>>& vectors, const Choice& choice,
                               Normaliser normaliser, int64_t largest) {
  return std::make_unique<DirectConv<S>>(store, pool, layer_kernels(isa, static_cast<const S*>(nullptr)),
                                         sparse_kernels(isa, static_cast<const S*>(nullptr)),
                                         sparse_kernels(isa, static_cast<const Real<S>*>(nullptr)), vectors, choice,
                                         std::move(normaliser), largest);
}

}  // namespace

std::unique_ptr<Executor> direct_conv(ParameterStore& store, Pool& pool, Isa isa, bool bf16, const Choice& choice,
                                      Normaliser normaliser, int64_t largest) {
  if (store.dtype == Dtype::kFloat64) {
    return make<double>(store, pool, isa, kernels_f64(), choice, std::move(normaliser), largest);
  }
  if (bf16) return make<Bf16>(store, pool, isa, kernels_f32(isa), choice, std::move(normaliser), largest);
  return make<float>(store, pool, isa, kernels_f32(isa), choice, std::move(normaliser), largest);
}

}  // namespace lth
