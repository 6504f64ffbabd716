// Explicit forward and backward through ATen: what `direct` is on CUDA. There the second update of a batch size is
// recorded, and replayed from then on; of images in bf16 much of it is our own kernels (image_kernels.h).
#include <algorithm>
#include <array>
#include <atomic>
#include <map>
#include <set>

#include <ATen/ops/_foreach_copy.h>

#include "cuda/cuda.h"
#include "exec/aten_batch.h"
#include "exec/image_kernels.h"

namespace lth {
namespace {

// Of pictures of CIFAR's size; of larger ones as many as have about as many pixels.
constexpr int64_t kEvaluationBatch = 1000, kEvaluationValues = kEvaluationBatch * 3 * 32 * 32;

// The calling thread's number, from 1. An id of the standard library is another thread's once this one has ended.
int64_t this_thread() {
  static std::atomic<int64_t> threads{0};
  thread_local const int64_t number = ++threads;
  return number;
}

class DirectAten final : public Executor {
 public:
  DirectAten(ParameterStore& store, const AtenOptions& options, Normaliser normaliser)
      : store_(store),
        net_(*store.network),
        on_device_(!store.device.is_cpu()),
        images_(options.bf16 ? at::kBFloat16 : store.weights.scalar_type()),
        // What tensor cores read. In fp32 and fp64 cuDNN has more and faster kernels for the other.
        format_(on_device_ && options.bf16 ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous),
        loader_(store, std::move(normaliser)),
        device_kernels_(DeviceKernels::of(store.device)),
        evaluation_batch_(std::max(options.largest, std::min(kEvaluationBatch, kEvaluationValues / net_.values[net_.input].features))) {
    for (size_t i = 0; i < net_.operations.size(); ++i) {
      for (int value : net_.operations[i].inputs) last_reader_[value] = i;
    }
    if (!options.bf16 || !options.our_kernels) return;
    kernels_ = ImageKernels::of(store);
    if (!kernels_) return;
    for (const Operation& op : net_.operations) {
      if (kernels_->activates(op)) adds_up_.insert(op.output);
      if (!kernels_->takes(op)) continue;
      adds_up_.insert(op.output);
      norm_of_.emplace(op.inputs[0], &op);
    }
  }

  int64_t evaluation_batch() const override { return evaluation_batch_; }

  BatchResult evaluate(const Batch& batch) override {
    c10::NoGradGuard no_grad;
    drops_ = false;
    const TensorBatch in = loader_.load(batch);
    forward(in.x, std::nullopt, Keep::kOutputs);
    return read(measure(at::log_softmax(values_[net_.output], 1), in.labels));
  }

  void observe(const Batch& batch, const Statistics& statistics) override {
    c10::NoGradGuard no_grad;
    drops_ = false;
    forward(loader_.load(batch).x, statistics, Keep::kOutputs);
  }

  BatchResult train(const Batch& batch, const Statistics& statistics, Wanted) override {
    c10::NoGradGuard no_grad;
    loader_.stage(batch);
    stage_dropout(batch);
    if (!on_device_ || statistics.how != Statistics::kLayers) return read(update(batch, statistics));
    Recorded& recorded = recorded_[{batch.data, batch.examples.size(), !batch.crops.empty()}];
    if (recorded.graph) {
      recorded.graph->replay();
    } else if (recorded.made_by != this_thread()) {
      // An update like any other, in which cuDNN and cuBLAS make what they may not make while they are recorded. They
      // keep it by thread, and a training is not always carried on by the same.
      recorded.made_by = this_thread();
      recorded.measured = update(batch, statistics);
    } else {
      // Of values_ and the like the graph's own memory holds all it needs.
      const auto other = std::find_if(recorded_.begin(), recorded_.end(), [](const auto& one) { return one.second.graph != nullptr; });
      const LaunchGraph* shares_with = other == recorded_.end() ? nullptr : other->second.graph.get();
      forget();
      recorded.graph = record([&] { recorded.measured = update_or_abandon(batch, statistics); }, shares_with);
      forget();
      recorded.graph->replay();
    }
    return read(recorded.measured);
  }

 private:
  // What backward needs of an operation beside its input and output.
  struct Saved {
    at::Tensor mean, inverse_deviation, reserve;  // batch norm: of the batch
    int64_t implementation = 0;
    at::Tensor indices;  // max pool
    at::Tensor which;    // the same, of our kernel
    at::Tensor kept;     // dropout: 0 or 1 / (1 - p)
    at::Tensor weight;   // convolution: in the images' type and format
  };
  struct Recorded {
    int64_t made_by = 0;  // a thread; 0: none
    std::unique_ptr<LaunchGraph> graph;
    at::Tensor measured;
  };
  using RecordedOf = std::tuple<const Dataset*, size_t, bool>;  // data set, batch size, cropped

  // An update that is recorded and fails joins the stream of its gradients: else the recording could not be ended.
  at::Tensor update_or_abandon(const Batch& batch, const Statistics& statistics) {
    try {
      return update(batch, statistics);
    } catch (...) {
      if (kernels_) kernels_->abandon();
      throw;
    }
  }

  // Of the batch that is staged: gradients into the store, running statistics, and what `measure` gives.
  at::Tensor update(const Batch& batch, const Statistics& statistics) {
    to_.clear();  // an update that failed may have left some
    from_.clear();
    const TensorBatch in = kernels_ ? kernels_->assemble(loader_.parts(batch), batch) : loader_.assemble(batch);
    forward(in.x, statistics, Keep::kAll);
    gradients_.assign(net_.values.size(), {});
    at::Tensor measured = loss(net_.output, in.labels, batch.smoothing);
    for (const auto& one : net_.auxiliary) {
      const at::Tensor other = loss(one.value, in.labels, batch.smoothing);
      measured = at::stack({measured.select(0, 0) + other.select(0, 0) * one.weight, measured.select(0, 1)});
      gradients_[one.value].first = gradients_[one.value].first * one.weight;
    }
    for (size_t i = net_.operations.size(); i-- > 0;) {
      const Operation& op = net_.operations[i];
      backward(op, saved_[i]);
      // Whoever reads it has gone back already.
      values_[op.output].reset();
      gradients_[op.output] = {};
      saved_[i] = {};
    }
    if (kernels_) kernels_->join();
    if (!to_.empty()) at::_foreach_copy_(to_, from_);
    return measured;
  }

  // What `measure` gives of these logits, and their gradient of the mean loss.
  at::Tensor loss(int logits, const at::Tensor& labels, double smoothing) {
    at::Tensor& d = gradients_[logits].first;
    if (kernels_ && smoothing == 0) {
      const ImageKernels::Loss made = kernels_->loss(values_[logits], labels);
      d = made.d_logits;
      return made.measured;
    }
    const at::Tensor log_p = at::log_softmax(values_[logits], 1);
    // d(mean cross-entropy)/dlogits = (softmax - target) / N
    d = log_p.exp();
    if (smoothing != 0) d = d - smoothing / static_cast<double>(d.size(1));
    d.scatter_add_(1, labels.unsqueeze(1), at::zeros_like(labels, log_p.options()).unsqueeze(1) - (1 - smoothing));
    d = d / static_cast<double>(labels.size(0));
    return measure(log_p, labels, smoothing);
  }

  // What dropout keeps of the batch, in the same place for every batch of one size: a recorded update reads it there.
  void stage_dropout(const Batch& batch) {
    drops_ = batch.dropout.has_value();
    if (!drops_) return;
    at::Tensor rows;
    for (const Operation& op : net_.operations) {
      if (op.type != Operation::kDropout) continue;
      const int64_t n = static_cast<int64_t>(batch.examples.size()), elements = net_.values[op.output].features;
      at::Tensor& staged = kept_[{batch.examples.size(), op.dropout}];
      if (!staged.defined()) staged = at::empty({n, elements}, at::TensorOptions().dtype(at::kByte).device(store_.device));
      if (!device_kernels_) {
        staged.copy_(kept_by_dropout(batch, op.dropout, elements, op.probability));
        continue;
      }
      if (!rows.defined()) {
        rows = at::from_blob(const_cast<int32_t*>(batch.examples.data()), {n}, at::TensorOptions().dtype(at::kInt)).to(store_.device);
      }
      const auto& [numbers, epoch] = *batch.dropout;
      const device::Drop p = {rows.data_ptr<int32_t>(), staged.data_ptr<uint8_t>(), elements, static_cast<int>(n),
                              {numbers.key[0], numbers.key[1]}, epoch, static_cast<uint32_t>(op.dropout), dropped_below(op.probability)};
      device_kernels_->launch(DeviceKernel::kDrop, {device::blocks_for(n * device::ceil_div(elements, 4)), 1, 1}, p);
    }
  }

  void forget() {
    values_.clear();
    gradients_.clear();
    saved_.clear();
    to_.clear();
    from_.clear();
  }

  // Stride and padding.
  static std::pair<std::array<int64_t, 2>, std::array<int64_t, 2>> steps_of(const Operation& op, bool folded) {
    if (folded) return {{1, 1}, {0, 0}};
    return {{op.stride.h, op.stride.w}, {op.padding.h, op.padding.w}};
  }
  at::Tensor weight(const Operation& op) { return store_.view(store_.weights, op.weight); }
  at::Tensor bias(const Operation& op) { return op.bias >= 0 ? store_.view(store_.weights, op.bias) : at::Tensor(); }
  // The value as rows, where a linear layer reads it flattened.
  at::Tensor rows(int value) { return values_[value].flatten(1).to(store_.weights.scalar_type()); }
  // As a convolution reads them.
  at::Tensor weight_of_images(const Operation& op) {
    if (kernels_) return kernels_->weight(op);
    return weight(op).to(weight(op).options().dtype(images_), false, false, format_);
  }
  // Undefined where it is added by `activate`.
  at::Tensor bias_of_images(const Operation& op) { return op.bias >= 0 && !activates(op) ? bias(op).to(images_) : at::Tensor(); }
  // What our kernels make of batch norms and of what follows convolutions.
  bool takes(const Operation& op) const { return op.type == Operation::kBatchNorm && adds_up_.contains(op.output); }
  bool activates(const Operation& op) const { return op.type == Operation::kConvolution && adds_up_.contains(op.output); }

  // Which values stay: all, which going back reads, or those that the network is for.
  enum class Keep { kAll, kOutputs };

  // In training where there are `statistics`: batch norm takes the batch's, and moves the running ones.
  void forward(const at::Tensor& x, const std::optional<Statistics>& statistics, Keep keep) {
    statistics_ = statistics;
    values_.assign(net_.values.size(), at::Tensor());
    saved_.assign(net_.operations.size(), {});
    values_[net_.input] = x.dim() == 4 ? x.to(x.options().dtype(images_), false, false, format_) : x;
    if (kernels_) kernels_->begin();
    for (size_t i = 0; i < net_.operations.size(); ++i) {
      const Operation& op = net_.operations[i];
      if (statistics_ || !op.auxiliary) values_[op.output] = value_of(op, saved_[i]);
      if (keep == Keep::kAll) continue;
      saved_[i] = {};
      for (int value : op.inputs) {
        if (last_reader_.at(value) == i) values_[value].reset();
      }
    }
  }

  at::Tensor value_of(const Operation& op, Saved& saved) {
    if (statistics_ && takes(op)) {
      const at::Tensor other = op.inputs.size() > 1 ? values_[op.inputs[1]] : at::Tensor();
      return kernels_->normalise(op, values_[op.inputs[0]], other, statistics_->momentum(op.momentum));
    }
    const at::Tensor y = apply(op, saved);
    if (activates(op)) return kernels_->activate(op, y);
    return op.fused_relu ? at::relu(y) : y;
  }

  at::Tensor apply(const Operation& op, Saved& saved) {
    const at::Tensor& in = values_[op.inputs[0]];
    switch (op.type) {
      case Operation::kLinear:
        if (kernels_) {
          const at::Tensor y = kernels_->linear(op, rows(op.inputs[0]));
          if (y.defined()) return y;
        }
        return op.bias >= 0 ? at::addmm(bias(op), rows(op.inputs[0]), weight(op).t())
                            : at::mm(rows(op.inputs[0]), weight(op).t());
      case Operation::kRelu: return at::relu(in);
      case Operation::kConvolution: {
        const bool folds = kernels_ && kernels_->folds(op, in);
        saved.weight = folds ? kernels_->folded_weight() : weight_of_images(op);
        if (kernels_ && !folds) {
          const auto norm = norm_of_.find(op.output);
          const bool sums_up = statistics_ && norm != norm_of_.end() && !op.fused_relu;
          const at::Tensor y = kernels_->convolve(op, in, sums_up ? norm->second : nullptr,
                                                  sums_up ? statistics_->momentum(norm->second->momentum) : 0);
          if (y.defined()) return y;
        }
        const auto [stride, padding] = steps_of(op, folds);
        return at::convolution(in, saved.weight, bias_of_images(op), stride, padding, {1, 1}, false, {0, 0}, 1);
      }
      case Operation::kBatchNorm: {
        const at::Tensor y = normalise(op, in, saved);
        return op.inputs.size() > 1 ? y + values_[op.inputs[1]] : y;
      }
      case Operation::kMaxPool: {
        if (kernels_) {
          const ImageKernels::Pooled pooled = kernels_->max_pool(op, in);
          saved.which = pooled.which;
          if (pooled.y.defined()) return pooled.y;
        }
        at::Tensor y;
        std::tie(y, saved.indices) = at::max_pool2d_with_indices(in, {op.kernel.h, op.kernel.w}, {op.stride.h, op.stride.w},
                                                                 {op.padding.h, op.padding.w}, {1, 1}, op.ceil);
        return y;
      }
      case Operation::kAveragePool:
        return at::avg_pool2d(in, {op.kernel.h, op.kernel.w}, {op.stride.h, op.stride.w}, {op.padding.h, op.padding.w});
      case Operation::kConcat: {
        std::vector<at::Tensor> parts;
        for (int one : op.inputs) parts.push_back(values_[one]);
        return at::cat(parts, 1);
      }
      case Operation::kDropout:
        if (!drops_) return in;
        saved.kept = kept_.at({static_cast<size_t>(in.size(0)), op.dropout}).to(in.scalar_type()).view(in.sizes()) / (1 - op.probability);
        return in * saved.kept;
      case Operation::kGlobalPool:
        if (kernels_) {
          const at::Tensor y = kernels_->pool(in);
          if (y.defined()) return y;
        }
        return in.to(store_.weights.scalar_type()).mean({2, 3});
      case Operation::kFlatten: return rows(op.inputs[0]);
      case Operation::kAdd: break;
    }
    at::Tensor sum = in;
    for (size_t i = 1; i < op.inputs.size(); ++i) sum = sum + values_[op.inputs[i]];
    return sum;
  }

  at::Tensor normalise(const Operation& op, const at::Tensor& in, Saved& saved) {
    at::Tensor mean = store_.view(store_.weights, op.running_mean);
    at::Tensor variance = store_.view(store_.weights, op.running_variance);
    double momentum = 0;
    if (statistics_) {
      momentum = statistics_->momentum(op.momentum);
      if (momentum != 0 && in.numel() == in.size(1)) {
        // Of a single value, where PyTorch's unbiased variance is 0/0, it is 0.
        mean.lerp_(in.flatten().to(mean.scalar_type()), momentum);
        variance.mul_(1 - momentum);
        momentum = 0;
      }
      if (momentum == 0) mean = variance = at::Tensor();
    }
    at::Tensor y;
    std::tie(y, saved.mean, saved.inverse_deviation, saved.reserve, saved.implementation) = at::_batch_norm_impl_index(
        in, weight(op), bias(op), mean, variance, statistics_.has_value(), momentum, op.epsilon, /*cudnn_enabled=*/true);
    return y;
  }

  void backward(const Operation& op, const Saved& saved) {
    const auto [d0, d1] = gradients_[op.output];
    if (takes(op)) {
      const auto [dx, d_other] = kernels_->normalise_backward(op, d0, d1, values_[op.inputs[0]], values_[op.output]);
      if (d_other.defined()) give(op.inputs[1], d_other);
      give(op.inputs[0], dx);
      return;
    }
    at::Tensor dy = activates(op) ? kernels_->activate_backward(op, d0, d1, values_[op.output]) : d0;
    if (op.type == Operation::kRelu || (op.fused_relu && !activates(op))) dy = at::threshold_backward(dy, values_[op.output], 0);
    const int input = op.inputs[0];
    const at::Tensor& in = values_[input];
    const bool wants_dx = input != net_.input;
    switch (op.type) {
      case Operation::kRelu:
      case Operation::kAdd:
        for (int one : op.inputs) give(one, dy);
        break;
      case Operation::kLinear:
        if (kernels_) {
          const at::Tensor dx = kernels_->linear_backward(op, rows(input), dy);
          if (dx.defined()) {
            if (wants_dx) give(input, dx.view(in.sizes()).to(in.scalar_type()));
            break;
          }
        }
        keep(op.weight, at::mm(dy.t(), rows(input)));
        if (op.bias >= 0) keep(op.bias, dy.sum(0));
        if (wants_dx) give(input, at::mm(dy, weight(op)).view(in.sizes()).to(in.scalar_type()));
        break;
      case Operation::kConvolution: {
        const bool folds = kernels_ && kernels_->folds(op, in);
        const bool ours = kernels_ && !folds && kernels_->weight_gradient(op, in, dy);
        const bool wants_bias = op.bias >= 0 && !activates(op);
        if (ours && !wants_dx && !wants_bias) break;
        if (ours) {
          const at::Tensor dx = kernels_->input_gradient(op, in, dy);
          if (dx.defined()) {
            give(input, dx);
            break;
          }
        }
        const at::IntArrayRef bias_shape = net_.layout->parameters[op.weight].shape[0];
        const auto [stride, padding] = steps_of(op, folds);
        const auto [dx, dw, db] = at::convolution_backward(
            dy, in, saved.weight, wants_bias ? c10::OptionalIntArrayRef(bias_shape) : c10::OptionalIntArrayRef(),
            stride, padding, {1, 1}, false, {0, 0}, 1, {wants_dx, !ours, wants_bias});
        if (folds) {
          kernels_->folded_gradient(dw);
        } else if (!ours) {
          keep(op.weight, dw);
        }
        if (wants_bias) keep(op.bias, db);
        if (wants_dx) give(input, dx);
        break;
      }
      case Operation::kBatchNorm: {
        if (op.inputs.size() > 1) give(op.inputs[1], dy);
        const auto [dx, dw, db] = at::_batch_norm_impl_index_backward(
            saved.implementation, in, dy, weight(op), at::Tensor(), at::Tensor(), saved.mean, saved.inverse_deviation, true,
            op.epsilon, {wants_dx, true, true}, saved.reserve);
        keep(op.weight, dw);
        keep(op.bias, db);
        if (wants_dx) give(input, dx);
        break;
      }
      case Operation::kMaxPool:
        if (saved.which.defined()) {
          give(input, kernels_->max_pool_backward(op, dy, saved.which, in));
          break;
        }
        give(input, at::max_pool2d_with_indices_backward(dy, in, {op.kernel.h, op.kernel.w}, {op.stride.h, op.stride.w},
                                                         {op.padding.h, op.padding.w}, {1, 1}, op.ceil, saved.indices));
        break;
      case Operation::kAveragePool:
        give(input, at::avg_pool2d_backward(dy, in, {op.kernel.h, op.kernel.w}, {op.stride.h, op.stride.w},
                                            {op.padding.h, op.padding.w}, false, true, std::nullopt));
        break;
      case Operation::kConcat: {
        int64_t first = 0;
        for (int one : op.inputs) {
          const int64_t channels = values_[one].size(1);
          give(one, dy.narrow(1, first, channels));
          first += channels;
        }
        break;
      }
      case Operation::kDropout: give(input, saved.kept.defined() ? dy * saved.kept : dy); break;
      case Operation::kFlatten: give(input, dy.view(in.sizes()).to(in.scalar_type())); break;
      case Operation::kGlobalPool: {
        if (kernels_) {
          const at::Tensor dx = kernels_->pool_backward(dy, in);
          if (dx.defined()) {
            give(input, dx);
            break;
          }
        }
        const double places = static_cast<double>(in.size(2) * in.size(3));
        give(input, (dy / places).to(in.scalar_type()).unsqueeze(2).unsqueeze(3).expand(in.sizes()));
        break;
      }
    }
  }

  // The parameter's gradient: vectors together at the end, a kernel for each of which would take longer than its work.
  void keep(int parameter, const at::Tensor& gradient) {
    at::Tensor to = store_.view(store_.gradients, parameter);
    if (gradient.dim() > 1) {
      to.copy_(gradient);
    } else {
      to_.push_back(to);
      from_.push_back(gradient);
    }
  }

  void give(int value, const at::Tensor& d) {
    if (value == net_.input) return;
    auto& [first, second] = gradients_[value];
    if (!first.defined()) {
      first = d;
    } else if (!second.defined() && adds_up_.contains(value)) {
      second = d;
    } else {
      first = first + d;
    }
  }

  ParameterStore& store_;
  const CompiledNetwork& net_;
  const bool on_device_;
  const at::ScalarType images_;
  const at::MemoryFormat format_;
  BatchLoader loader_;
  const DeviceKernels* const device_kernels_;  // or null
  const int64_t evaluation_batch_;
  std::map<int, size_t> last_reader_;  // of a value: the operation
  std::optional<Statistics> statistics_;
  std::unique_ptr<ImageKernels> kernels_;  // or null
  std::map<int, const Operation*> norm_of_;  // values that a batch norm of our kernels reads, and it
  std::set<int> adds_up_;                  // values whose gradient may be of two terms, for our kernels add them up
  std::vector<at::Tensor> values_;
  std::vector<std::pair<at::Tensor, at::Tensor>> gradients_;
  std::vector<Saved> saved_;
  std::vector<at::Tensor> to_, from_;
  std::map<std::pair<size_t, int>, at::Tensor> kept_;  // by batch size and dropout layer: what stays, on the device
  bool drops_ = false;                                 // dropout has noise
  std::map<RecordedOf, Recorded> recorded_;
};

}  // namespace

std::unique_ptr<Executor> direct_aten(ParameterStore& store, const AtenOptions& options, Normaliser normaliser) {
  return std::make_unique<DirectAten>(store, options, std::move(normaliser));
}

}  // namespace lth
