// The production executor for networks with convolutions on the CPU.
//
// Images are (N, H, W, C), the channel innermost, in the storage type S (float, bf16 or double); vectors of features,
// which follow global pooling, are (features, L) with the batch innermost in R, as direct_cpu.cc has them. The batch is
// cut into slices of fixed size: a stage takes one slice through as many layers as it can while they are in the
// core's cache, and ends where all slices must be known: at the statistics of batch norm. What is summed over the batch
// is summed inside the slices and then in the slices' order, so that no bit depends on the number of threads.
//
// Convolutions are LibTorch's, one thread and one slice each (oneDNN where it has one for the type).
#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <functional>
#include <numeric>

#include "core/error.h"
#include "exec/aten.h"
#include "exec/executor.h"
#include "kernels/layers.h"

namespace lth {
namespace {

constexpr int64_t kSlice = 16;
// LibTorch reorders a convolution's weights in every call: large ones are worth more examples a call.
constexpr int64_t kSliceOfLargeWeights = 32;
constexpr int64_t kLargeWeights = 1 << 20;
constexpr int64_t kEvaluationBatch = 128;
constexpr int64_t kRowsPerTask = 24;           // of a linear layer, as in direct_cpu.cc
constexpr int64_t kWeightsPerTask = 1 << 15;   // converted, or summed over the slices

int64_t tasks_for(int64_t items, int64_t per_task) { return (items + per_task - 1) / per_task; }

int64_t slice_of(const CompiledNetwork& net) {
  int64_t largest = 0;
  for (const Operation& op : net.operations) {
    if (op.type == Operation::kConvolution) largest = std::max(largest, net.layout->parameters[op.weight].size);
  }
  return largest >= kLargeWeights ? kSliceOfLargeWeights : kSlice;
}

constexpr at::ScalarType type_of(const float*) { return at::kFloat; }
constexpr at::ScalarType type_of(const double*) { return at::kDouble; }
constexpr at::ScalarType type_of(const Bf16*) { return at::kBFloat16; }

template <typename S>
class DirectConv final : public Executor {
  using R = Real<S>;

 public:
  DirectConv(ParameterStore& store, Pool& pool, const LayerKernels<S>& images, const Kernels<R>& vectors,
             Normaliser normaliser, int64_t largest)
      : store_(store), pool_(pool), images_(images), vectors_(vectors), net_(*store.network), slice_(slice_of(net_)) {
    const int64_t capacity = std::max(largest, kEvaluationBatch);
    capacity_ = (capacity + slice_ - 1) / slice_ * slice_;
    make_values();
    make_layers();
    plan();
    labels_.resize(capacity_);
    losses_.resize(capacity_);
    moments_.resize(capacity_ / slice_);
    errors_.resize(capacity_ / slice_);
    for (size_t c = 0; c < normaliser.scale.size(); ++c) {
      for (int byte = 0; byte < 256; ++byte) {
        const R value = static_cast<R>(byte * normaliser.scale[c] + normaliser.shift[c]);
        S stored;
        images_.narrow(&value, &stored, 1);
        pixels_.push_back(stored);
      }
    }
  }

  int64_t evaluation_batch() const override { return kEvaluationBatch; }

  BatchResult evaluate(const Batch& batch) override {
    c10::NoGradGuard no_grad;
    begin(batch);
    for (const Operation& op : net_.operations) {
      if (op.type == Operation::kBatchNorm) use_running_statistics(op);
    }
    run(evaluation_);
    return loss(nullptr);
  }

  BatchResult train(const Batch& batch, const Statistics& statistics) override {
    c10::NoGradGuard no_grad;
    begin(batch);
    statistics_ = &statistics;
    run(forward_);
    for (Value& v : values_) {
      std::fill(v.ready.begin(), v.ready.end(), false);
      for (auto& given : v.gradients) given.clear();
    }
    Value& logits = values_[net_.output];
    const BatchResult result = loss(as<R>(logits.gradient));
    std::fill(logits.ready.begin(), logits.ready.end(), true);
    run(backward_);
    return result;
  }

 private:
  struct Value {
    int64_t features = 0, channels = 0, places = 0, height = 0, width = 0;
    bool image = false;
    bool made_by_convolution = false;
    Arena storage;                 // image: (N, places, channels) S
    std::vector<at::Tensor> made;  // per slice, of a convolution, in LibTorch's memory
    // What has been given of an image's gradient: one or two tensors per slice, to be added.
    std::vector<std::vector<at::Tensor>> gradients;
    // A vector, or an image that a linear layer reads: (features, L) R, in the order C, H, W.
    Arena columns, rows, gradient;
    int64_t row_stride = 0;
    std::vector<char> ready;  // per slice: `gradient` holds something
  };

  // What belongs to an operation beside its values.
  struct Layer {
    // Convolution: weights and bias as LibTorch's convolution reads them; their gradients of each slice.
    at::Tensor weight, bias;
    std::vector<at::Tensor> slice_gradients;
    std::vector<std::vector<double>> bias_gradients;
    // Batch norm: `period` elements each.
    int64_t period = 0;
    std::vector<R> mean, scale, shift, constant, slope;
    std::vector<double> inverse_deviation;  // per channel
    std::vector<at::Tensor> gated;          // per slice: the gradient behind ReLU and sum
  };

  using Step = void (DirectConv::*)(const Operation&, int64_t slice);
  using Join = void (DirectConv::*)(const Operation&);
  struct Stage {
    std::vector<std::pair<Step, const Operation*>> steps;  // for every slice, slices in parallel
    std::vector<std::pair<Join, const Operation*>> joins;  // then once each
  };

  struct Moments {
    std::vector<double> shift, first, second;
  };

  template <typename T>
  static T* as(const Arena& arena) {
    return reinterpret_cast<T*>(arena.data());
  }

  // ---- Set-up

  void make_values() {
    values_.resize(net_.values.size());
    const int64_t slices = capacity_ / slice_;
    for (size_t i = 0; i < values_.size(); ++i) {
      Value& v = values_[i];
      const std::vector<int64_t>& shape = net_.values[i].shape;
      v.features = net_.values[i].features;
      v.image = shape.size() == 3;
      v.channels = shape[0];
      v.places = v.features / v.channels;
      if (v.image) {
        v.height = shape[1];
        v.width = shape[2];
        v.made.resize(slices);
        v.gradients.resize(slices);
      }
      v.row_stride = padded(v.features);
      v.ready.resize(slices);
    }
    std::vector<bool> as_rows(values_.size());
    for (const Operation& op : net_.operations) {
      if (op.type == Operation::kConvolution) values_[op.output].made_by_convolution = true;
      if (op.type == Operation::kLinear) as_rows[op.inputs[0]] = true;
    }
    const auto elements = [&](int64_t n) { return static_cast<size_t>(n * capacity_); };
    for (size_t i = 0; i < values_.size(); ++i) {
      Value& v = values_[i];
      if (v.image && !v.made_by_convolution) v.storage = Arena(elements(v.features) * sizeof(S));
      if (!v.image || as_rows[i]) {
        v.columns = Arena(elements(v.features) * sizeof(R));
        v.gradient = Arena(elements(v.features) * sizeof(R));
      }
      if (as_rows[i]) v.rows = Arena(elements(v.row_stride) * sizeof(R));
    }
  }

  void make_layers() {
    layers_.resize(net_.operations.size());
    const int64_t slices = capacity_ / slice_;
    for (const Operation& op : net_.operations) {
      Layer& l = layer(op);
      if (op.type == Operation::kConvolution) {
        const ParameterSpec& w = net_.layout->parameters[op.weight];
        l.weight = at::empty(w.shape, options(), at::MemoryFormat::ChannelsLast);
        l.slice_gradients.resize(slices);
        if (op.bias >= 0) {
          l.bias = at::empty({w.shape[0]}, options());
          l.bias_gradients.resize(slices);
        }
        const int64_t rows = std::max<int64_t>(1, kWeightsPerTask / (w.size / w.shape[0]));
        for (int64_t k = 0; k < w.shape[0]; k += rows) blocks_.push_back({&op, k, std::min(w.shape[0], k + rows)});
      } else if (op.type == Operation::kBatchNorm) {
        const int64_t channels = values_[op.output].channels;
        l.period = std::lcm(channels, kLane);
        for (auto* one : {&l.mean, &l.scale, &l.shift, &l.constant, &l.slope}) one->resize(l.period);
        l.inverse_deviation.resize(channels);
        l.gated.resize(slices);
      }
    }
  }

  void plan() {
    Stage stage, all;
    const auto end = [](std::vector<Stage>& stages, Stage& one) {
      if (!one.steps.empty() || !one.joins.empty()) stages.push_back(std::move(one));
      one = {};
    };
    for (const Operation& op : net_.operations) {
      if (op.type == Operation::kBatchNorm) {
        if (values_[op.output].image) {
          stage.steps.push_back({&DirectConv::moments, &op});
          stage.joins.push_back({&DirectConv::join_moments, &op});
          end(forward_, stage);
          stage.steps.push_back({&DirectConv::normalise, &op});
        } else {
          stage.joins.push_back({&DirectConv::normalise_vectors, &op});
          end(forward_, stage);
        }
        all.steps.push_back({values_[op.output].image ? &DirectConv::normalise : &DirectConv::normalise_columns, &op});
      } else {
        stage.steps.push_back({forward_of(op), &op});
        all.steps.push_back({forward_of(op), &op});
      }
    }
    end(forward_, stage);
    end(evaluation_, all);
    for (auto op = net_.operations.rbegin(); op != net_.operations.rend(); ++op) {
      switch (op->type) {
        case Operation::kBatchNorm:
          if (values_[op->output].image) {
            stage.steps.push_back({&DirectConv::gate, &*op});
            stage.joins.push_back({&DirectConv::join_gate, &*op});
            end(backward_, stage);
            stage.steps.push_back({&DirectConv::normalise_backward, &*op});
          } else {
            stage.joins.push_back({&DirectConv::normalise_vectors_backward, &*op});
            end(backward_, stage);
          }
          break;
        case Operation::kConvolution:
          stage.steps.push_back({&DirectConv::convolution_backward, &*op});
          stage.joins.push_back({&DirectConv::join_convolution, &*op});
          break;
        case Operation::kLinear:
          stage.steps.push_back({&DirectConv::linear_backward, &*op});
          stage.joins.push_back({&DirectConv::join_linear, &*op});
          break;
        case Operation::kRelu: stage.steps.push_back({&DirectConv::relu_backward, &*op}); break;
        case Operation::kAdd: stage.steps.push_back({&DirectConv::add_backward, &*op}); break;
        case Operation::kMaxPool: stage.steps.push_back({&DirectConv::max_pool_backward, &*op}); break;
        case Operation::kGlobalPool: stage.steps.push_back({&DirectConv::global_pool_backward, &*op}); break;
      }
    }
    end(backward_, stage);
  }

  static Step forward_of(const Operation& op) {
    switch (op.type) {
      case Operation::kConvolution: return &DirectConv::convolution;
      case Operation::kLinear: return &DirectConv::linear;
      case Operation::kRelu: return &DirectConv::relu;
      case Operation::kAdd: return &DirectConv::add;
      case Operation::kMaxPool: return &DirectConv::max_pool;
      case Operation::kGlobalPool: return &DirectConv::global_pool;
      case Operation::kBatchNorm: break;
    }
    return &DirectConv::normalise;
  }

  Layer& layer(const Operation& op) { return layers_[&op - net_.operations.data()]; }
  static at::TensorOptions options() { return at::TensorOptions().dtype(type_of(static_cast<const S*>(nullptr))); }
  R* parameter(at::Tensor& flat, int index) { return flat.data_ptr<R>() + net_.layout->parameters[index].offset; }

  // ---- Slices

  int64_t first(int64_t slice) const { return slice * slice_; }
  int64_t examples(int64_t slice) const { return std::min(slice_, n_ - first(slice)); }
  // Lanes of the columns that are a slice's; the last slice has those behind N too.
  int64_t lanes(int64_t slice) const { return std::min(slice_, lanes_ - first(slice)); }

  S* image(int value, int64_t slice) {
    Value& v = values_[value];
    if (v.made_by_convolution) return data(v.made[slice]);
    return as<S>(v.storage) + first(slice) * v.features;
  }

  static S* data(const at::Tensor& t) { return static_cast<S*>(t.mutable_data_ptr()); }

  at::Tensor image_tensor(int value, int64_t slice) {
    const Value& v = values_[value];
    if (v.made_by_convolution) return v.made[slice];
    const int64_t c = v.channels;
    return at::from_blob(image(value, slice), {examples(slice), c, v.height, v.width},
                         {v.features, 1, v.width * c, c}, options());
  }

  at::Tensor empty_image(int value, int64_t slice) {
    const Value& v = values_[value];
    return at::empty({examples(slice), v.channels, v.height, v.width}, options(), at::MemoryFormat::ChannelsLast);
  }

  int64_t elements(int value, int64_t slice) { return examples(slice) * values_[value].features; }

  // The gradient of an image's slice, or its second part. Tensors that are given belong to the value: it may write there.
  void give(int value, int64_t slice, at::Tensor d) {
    if (value == net_.input) return;
    std::vector<at::Tensor>& given = values_[value].gradients[slice];
    if (given.size() == 2) {
      images_.add(data(given[0]), data(d), data(given[0]), elements(value, slice));
    } else {
      given.push_back(std::move(d));
    }
  }

  // All that was given, in one tensor.
  at::Tensor take(int value, int64_t slice) {
    std::vector<at::Tensor>& given = values_[value].gradients[slice];
    if (given.size() == 2) images_.add(data(given[0]), data(given[1]), data(given[0]), elements(value, slice));
    at::Tensor sum = std::move(given[0]);
    given.clear();
    return sum;
  }

  void run(const std::vector<Stage>& stages) {
    for (const Stage& stage : stages) {
      if (!stage.steps.empty()) {
        parallel(slices_, [&](int64_t slice) {
          for (const auto& [step, op] : stage.steps) (this->*step)(*op, slice);
        });
      }
      for (const auto& [join, op] : stage.joins) (this->*join)(*op);
    }
  }

  // LibTorch throws (out of memory), and a task of the pool must not: the first slice's exception goes on here.
  template <typename F>
  void parallel(int64_t tasks, F&& f) {
    std::fill(errors_.begin(), errors_.end(), nullptr);
    pool_.parallel(tasks, [&](int64_t task) {
      const at::AutoDispatchBelowADInplaceOrView below_autograd;
      try {
        f(task);
      } catch (...) {
        errors_[task] = std::current_exception();
      }
    });
    for (const std::exception_ptr& error : errors_) {
      if (error) std::rethrow_exception(error);
    }
  }

  // ---- The batch and the weights

  void begin(const Batch& batch) {
    n_ = static_cast<int64_t>(batch.examples.size());
    lanes_ = padded(n_);
    slices_ = tasks_for(n_, slice_);
    convert_weights();
    const Dataset& data = *batch.data;
    for (int64_t n = 0; n < n_; ++n) labels_[n] = data.labels[batch.examples[n]];
    parallel(slices_, [&](int64_t slice) { gather(batch, slice); });
  }

  // Bytes (C,H,W) of a slice's examples -> normalised (H,W,C).
  void gather(const Batch& batch, int64_t slice) {
    const Dataset& from = *batch.data;
    const Value& in = values_[net_.input];
    std::vector<uint8_t> cropped(batch.crops.empty() ? 0 : in.features);
    S* to = image(net_.input, slice);
    for (int64_t n = first(slice); n < first(slice) + examples(slice); ++n, to += in.features) {
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

  // fp32 masters (K,C,h,w) -> (K,h,w,C) in S.
  void convert_weights() {
    pool_.parallel(static_cast<int64_t>(blocks_.size()), [&](int64_t task) {
      const Block& b = blocks_[task];
      const std::vector<int64_t>& shape = net_.layout->parameters[b.op->weight].shape;
      const int64_t channels = shape[1], area = shape[2] * shape[3], row = channels * area;
      const R* from = parameter(store_.weights, b.op->weight);
      S* to = data(layer(*b.op).weight);
      std::vector<R> turned(row);
      for (int64_t k = b.first; k < b.last; ++k) {
        vectors_.transpose(from + k * row, area, turned.data(), channels, channels, area);
        images_.narrow(turned.data(), to + k * row, row);
      }
      if (b.op->bias >= 0) {
        images_.narrow(parameter(store_.weights, b.op->bias) + b.first, data(layer(*b.op).bias) + b.first, b.last - b.first);
      }
    });
  }

  BatchResult loss(R* dlogits) {
    BatchResult result;
    const Value& logits = values_[net_.output];
    result.correct = vectors_.cross_entropy(as<R>(logits.columns), lanes_, logits.features, n_, labels_.data(),
                                            R(1) / static_cast<R>(n_), losses_.data(), dlogits);
    for (int64_t n = 0; n < n_; ++n) result.loss += static_cast<double>(losses_[n]);
    return result;
  }

  // ---- Convolution

  void convolution(const Operation& op, int64_t slice) {
    const Layer& l = layer(op);
    const at::Tensor y = at::convolution(image_tensor(op.inputs[0], slice), l.weight, l.bias, {op.stride.h, op.stride.w},
                                         {op.padding.h, op.padding.w}, {1, 1}, false, {0, 0}, 1);
    values_[op.output].made[slice] = y.contiguous(at::MemoryFormat::ChannelsLast);
  }

  void convolution_backward(const Operation& op, int64_t slice) {
    Layer& l = layer(op);
    const at::Tensor dy = take(op.output, slice);
    const bool wants_dx = op.inputs[0] != net_.input;
    at::Tensor dx, dw, db;
    std::tie(dx, dw, db) = at::convolution_backward(
        dy, image_tensor(op.inputs[0], slice), l.weight, c10::OptionalIntArrayRef(), {op.stride.h, op.stride.w},
        {op.padding.h, op.padding.w}, {1, 1}, false, {0, 0}, 1, {wants_dx, true, false});
    l.slice_gradients[slice] = dw.contiguous(at::MemoryFormat::ChannelsLast);
    if (wants_dx) give(op.inputs[0], slice, dx.contiguous(at::MemoryFormat::ChannelsLast));
    if (op.bias >= 0) {
      const int64_t period = std::lcm(values_[op.output].channels, kLane);
      l.bias_gradients[slice].resize(period);
      images_.column_sums(data(dy), elements(op.output, slice), period, l.bias_gradients[slice].data());
    }
  }

  // The slices' weight gradients, in their order, (K,h,w,C) S -> (K,C,h,w) R.
  void join_convolution(const Operation& op) {
    Layer& l = layer(op);
    const std::vector<int64_t>& shape = net_.layout->parameters[op.weight].shape;
    const int64_t channels = shape[1], area = shape[2] * shape[3], row = channels * area;
    const int64_t rows = std::max<int64_t>(1, kWeightsPerTask / row);
    R* to = parameter(store_.gradients, op.weight);
    pool_.parallel(tasks_for(shape[0], rows), [&](int64_t task) {
      std::vector<R> sum(row);
      for (int64_t k = task * rows; k < std::min(shape[0], (task + 1) * rows); ++k) {
        images_.widen(data(l.slice_gradients[0]) + k * row, sum.data(), row);
        for (int64_t s = 1; s < slices_; ++s) images_.widen_add(data(l.slice_gradients[s]) + k * row, sum.data(), row);
        vectors_.transpose(sum.data(), channels, to + k * row, area, area, channels);
      }
    });
    if (op.bias < 0) return;
    R* bias = parameter(store_.gradients, op.bias);
    const int64_t period = std::lcm(shape[0], kLane);
    for (int64_t k = 0; k < shape[0]; ++k) {
      double sum = 0;
      for (int64_t s = 0; s < slices_; ++s) {
        for (int64_t p = k; p < period; p += shape[0]) sum += l.bias_gradients[s][p];
      }
      bias[k] = static_cast<R>(sum);
    }
  }

  // ---- Batch norm of images (Ioffe & Szegedy 2015)

  static void repeat(std::vector<R>& to, int64_t channels, const std::function<double(int64_t)>& of) {
    for (int64_t c = 0; c < channels; ++c) to[c] = static_cast<R>(of(c));
    for (size_t p = channels; p < to.size(); ++p) to[p] = to[p - channels];
  }

  void set_constants(const Operation& op, const std::function<double(int64_t)>& mean,
                     const std::function<double(int64_t)>& variance) {
    Layer& l = layer(op);
    const int64_t channels = values_[op.output].channels;
    const R *gamma = parameter(store_.weights, op.weight), *beta = parameter(store_.weights, op.bias);
    for (int64_t c = 0; c < channels; ++c) l.inverse_deviation[c] = 1 / std::sqrt(variance(c) + op.epsilon);
    repeat(l.mean, channels, mean);
    repeat(l.scale, channels, [&](int64_t c) { return static_cast<double>(gamma[c]) * l.inverse_deviation[c]; });
    repeat(l.shift, channels, [&](int64_t c) { return static_cast<double>(beta[c]); });
  }

  void use_running_statistics(const Operation& op) {
    const R *mean = parameter(store_.weights, op.running_mean), *variance = parameter(store_.weights, op.running_variance);
    set_constants(op, [&](int64_t c) { return static_cast<double>(mean[c]); },
                  [&](int64_t c) { return static_cast<double>(variance[c]); });
  }

  void use_batch_statistics(const Operation& op, const std::vector<double>& mean, const std::vector<double>& variance,
                            double count) {
    set_constants(op, [&](int64_t c) { return mean[c]; }, [&](int64_t c) { return variance[c]; });
    const double momentum = statistics_->momentum(op.momentum);
    if (momentum == 0) return;
    R* running_mean = parameter(store_.weights, op.running_mean);
    R* running_variance = parameter(store_.weights, op.running_variance);
    // The running variance is PyTorch's, the unbiased one.
    const double unbiased = count / std::max(count - 1, 1.0);
    const auto move = [&](R& to, double towards) {
      to = static_cast<R>(static_cast<double>(to) + momentum * (towards - static_cast<double>(to)));
    };
    for (size_t c = 0; c < mean.size(); ++c) {
      move(running_mean[c], mean[c]);
      move(running_variance[c], variance[c] * unbiased);
    }
  }

  Moments& moments_of(int64_t slice, int64_t period) {
    Moments& m = moments_[slice];
    for (auto* one : {&m.shift, &m.first, &m.second}) {
      if (static_cast<int64_t>(one->size()) < period) one->resize(period);
    }
    return m;
  }

  void moments(const Operation& op, int64_t slice) {
    const int64_t period = layer(op).period;
    Moments& m = moments_of(slice, period);
    images_.moments(image(op.inputs[0], slice), elements(op.inputs[0], slice), period, m.shift.data(), m.first.data(),
                    m.second.data());
  }

  // Chan, Golub & LeVeque 1983: means and sums of squares around them, part by part.
  void join_moments(const Operation& op) {
    const int64_t channels = values_[op.output].channels, period = layer(op).period;
    std::vector<double> mean(channels, 0), squares(channels, 0), count(channels, 0);
    for (int64_t s = 0; s < slices_; ++s) {
      const Moments& m = moments_[s];
      const int64_t total = elements(op.inputs[0], s);
      for (int64_t p = 0; p < period; ++p) {
        const double n = static_cast<double>(total / period + (p < total % period));
        if (n == 0) break;
        const int64_t c = p % channels;
        const double part_mean = m.shift[p] + m.first[p] / n, part_squares = m.second[p] - m.first[p] * m.first[p] / n;
        const double difference = part_mean - mean[c], all = count[c] + n;
        mean[c] += difference * n / all;
        squares[c] += part_squares + difference * difference * count[c] * n / all;
        count[c] = all;
      }
    }
    std::vector<double> variance(channels);
    for (int64_t c = 0; c < channels; ++c) variance[c] = std::max(squares[c] / count[c], 0.0);
    use_batch_statistics(op, mean, variance, count[0]);
  }

  void normalise(const Operation& op, int64_t slice) {
    const Layer& l = layer(op);
    const S* other = op.inputs.size() > 1 ? image(op.inputs[1], slice) : nullptr;
    images_.normalise(image(op.inputs[0], slice), other, elements(op.output, slice), l.period, l.mean.data(),
                      l.scale.data(), l.shift.data(), op.fused_relu, image(op.output, slice));
  }

  // The gradient behind ReLU, and its sums.
  void gate(const Operation& op, int64_t slice) {
    Layer& l = layer(op);
    std::vector<at::Tensor>& given = values_[op.output].gradients[slice];
    Moments& m = moments_of(slice, l.period);
    const at::Tensor d = given[0];
    images_.gate(data(d), given.size() > 1 ? data(given[1]) : nullptr, op.fused_relu ? image(op.output, slice) : nullptr,
                 image(op.inputs[0], slice), elements(op.output, slice), l.period, l.mean.data(), data(d), m.first.data(),
                 m.second.data());
    given.clear();
    l.gated[slice] = d;
    if (op.inputs.size() > 1) give(op.inputs[1], slice, d);
  }

  void join_gate(const Operation& op) {
    Layer& l = layer(op);
    const int64_t channels = values_[op.output].channels;
    std::vector<double> sum(channels, 0), product(channels, 0);
    for (int64_t s = 0; s < slices_; ++s) {
      for (int64_t p = 0; p < l.period; ++p) {
        sum[p % channels] += moments_[s].first[p];
        product[p % channels] += moments_[s].second[p];
      }
    }
    finish_gradients(op, sum, product, static_cast<double>(n_ * values_[op.output].places));
  }

  void finish_gradients(const Operation& op, const std::vector<double>& sum, const std::vector<double>& product,
                        double count) {
    Layer& l = layer(op);
    const auto channels = static_cast<int64_t>(sum.size());
    R *dgamma = parameter(store_.gradients, op.weight), *dbeta = parameter(store_.gradients, op.bias);
    for (int64_t c = 0; c < channels; ++c) {
      dgamma[c] = static_cast<R>(product[c] * l.inverse_deviation[c]);
      dbeta[c] = static_cast<R>(sum[c]);
    }
    repeat(l.constant, channels, [&](int64_t c) { return sum[c] / count; });
    repeat(l.slope, channels, [&](int64_t c) {
      return product[c] / count * l.inverse_deviation[c] * l.inverse_deviation[c];
    });
  }

  void normalise_backward(const Operation& op, int64_t slice) {
    Layer& l = layer(op);
    const at::Tensor g = std::move(l.gated[slice]);
    // Where the sum's other term has it too, it must stay.
    const at::Tensor dx = op.inputs.size() > 1 ? empty_image(op.inputs[0], slice) : g;
    images_.normalise_backward(data(g), image(op.inputs[0], slice), elements(op.inputs[0], slice), l.period, l.mean.data(),
                               l.scale.data(), l.constant.data(), l.slope.data(), data(dx));
    give(op.inputs[0], slice, dx);
  }

  // ---- Batch norm of vectors: one plain pass, for no network of the paper has it.

  void normalise_vectors(const Operation& op) {
    const Value& in = values_[op.inputs[0]];
    const R* x = as<R>(in.columns);
    std::vector<double> mean(in.features), variance(in.features);
    for (int64_t f = 0; f < in.features; ++f) {
      for (int64_t n = 0; n < n_; ++n) mean[f] += static_cast<double>(x[f * lanes_ + n]);
      mean[f] /= static_cast<double>(n_);
      for (int64_t n = 0; n < n_; ++n) {
        const double d = static_cast<double>(x[f * lanes_ + n]) - mean[f];
        variance[f] += d * d;
      }
      variance[f] /= static_cast<double>(n_);
    }
    use_batch_statistics(op, mean, variance, static_cast<double>(n_));
    for (int64_t s = 0; s < slices_; ++s) normalise_columns(op, s);
  }

  void normalise_columns(const Operation& op, int64_t slice) {
    const Layer& l = layer(op);
    const R* x = as<R>(values_[op.inputs[0]].columns);
    const R* other = op.inputs.size() > 1 ? as<R>(values_[op.inputs[1]].columns) : nullptr;
    R* y = as<R>(values_[op.output].columns);
    for (int64_t f = 0; f < values_[op.output].features; ++f) {
      for (int64_t i = f * lanes_ + first(slice); i < f * lanes_ + first(slice) + lanes(slice); ++i) {
        R v = (x[i] - l.mean[f]) * l.scale[f] + l.shift[f];
        if (other) v += other[i];
        y[i] = op.fused_relu && v < R(0) ? R(0) : v;
      }
    }
  }

  void normalise_vectors_backward(const Operation& op) {
    Layer& l = layer(op);
    const Value &out = values_[op.output], &in = values_[op.inputs[0]];
    const R *x = as<R>(in.columns), *y = as<R>(out.columns);
    R* g = as<R>(out.gradient);
    std::vector<double> sum(out.features), product(out.features);
    for (int64_t f = 0; f < out.features; ++f) {
      for (int64_t i = f * lanes_; i < f * lanes_ + n_; ++i) {
        if (op.fused_relu && y[i] <= R(0)) g[i] = 0;
        sum[f] += static_cast<double>(g[i]);
        product[f] += static_cast<double>(g[i]) * static_cast<double>(x[i] - l.mean[f]);
      }
    }
    finish_gradients(op, sum, product, static_cast<double>(n_));
    std::vector<R> dx(out.features * lanes_, R(0));  // 0 in the lanes behind N
    for (int64_t f = 0; f < out.features; ++f) {
      for (int64_t i = f * lanes_; i < f * lanes_ + n_; ++i) {
        dx[i] = (g[i] - l.constant[f] - (x[i] - l.mean[f]) * l.slope[f]) * l.scale[f];
      }
    }
    for (int64_t s = 0; s < slices_; ++s) {
      if (op.inputs.size() > 1) give_columns(op.inputs[1], s, g);
      give_columns(op.inputs[0], s, dx.data());
    }
  }

  // ---- The other layers

  // f(offset of a feature's lanes of the slice) for each feature.
  template <typename F>
  void over_columns(const Value& v, int64_t slice, F&& f) {
    for (int64_t feature = 0; feature < v.features; ++feature) f(feature * lanes_ + first(slice));
  }

  void give_columns(int value, int64_t slice, const R* d) {
    Value& v = values_[value];
    R* to = as<R>(v.gradient);
    over_columns(v, slice, [&](int64_t at) {
      if (v.ready[slice]) {
        vectors_.add(to + at, d + at, to + at, lanes(slice));
      } else {
        std::memcpy(to + at, d + at, static_cast<size_t>(lanes(slice)) * sizeof(R));
      }
    });
    v.ready[slice] = true;
  }

  void relu(const Operation& op, int64_t slice) {
    const Value &in = values_[op.inputs[0]], &out = values_[op.output];
    if (out.image) return images_.relu(image(op.inputs[0], slice), image(op.output, slice), elements(op.output, slice));
    over_columns(out, slice, [&](int64_t at) { vectors_.relu(as<R>(in.columns) + at, as<R>(out.columns) + at, lanes(slice)); });
  }

  void relu_backward(const Operation& op, int64_t slice) {
    const Value& out = values_[op.output];
    if (out.image) {
      const at::Tensor d = take(op.output, slice);
      images_.relu_backward(image(op.output, slice), data(d), data(d), elements(op.output, slice));
      give(op.inputs[0], slice, d);
    } else {
      gate_columns(out, slice);
      give_columns(op.inputs[0], slice, as<R>(out.gradient));
    }
  }

  void gate_columns(const Value& out, int64_t slice) {
    over_columns(out, slice, [&](int64_t at) {
      vectors_.relu_backward(as<R>(out.columns) + at, as<R>(out.gradient) + at, lanes(slice));
    });
  }

  void add(const Operation& op, int64_t slice) {
    const Value& out = values_[op.output];
    for (size_t i = 1; i < op.inputs.size(); ++i) {
      const int left = i == 1 ? op.inputs[0] : op.output;
      if (out.image) {
        images_.add(image(left, slice), image(op.inputs[i], slice), image(op.output, slice), elements(op.output, slice));
      } else {
        over_columns(out, slice, [&](int64_t at) {
          vectors_.add(as<R>(values_[left].columns) + at, as<R>(values_[op.inputs[i]].columns) + at,
                       as<R>(out.columns) + at, lanes(slice));
        });
      }
    }
  }

  void add_backward(const Operation& op, int64_t slice) {
    if (!values_[op.output].image) {
      for (int input : op.inputs) give_columns(input, slice, as<R>(values_[op.output].gradient));
      return;
    }
    const at::Tensor d = take(op.output, slice);
    for (size_t i = 0; i < op.inputs.size(); ++i) give(op.inputs[i], slice, i == 0 ? d : d.clone());
  }

  Window window(const Operation& op) const {
    const Value &in = values_[op.inputs[0]], &out = values_[op.output];
    return {in.height, in.width, in.channels, out.height, out.width, op.kernel.h, op.kernel.w, op.stride.h, op.stride.w,
            op.padding.h, op.padding.w};
  }

  void max_pool(const Operation& op, int64_t slice) {
    const int64_t in = values_[op.inputs[0]].features, out = values_[op.output].features;
    for (int64_t n = 0; n < examples(slice); ++n) {
      images_.max_pool(window(op), image(op.inputs[0], slice) + n * in, image(op.output, slice) + n * out);
    }
  }

  void max_pool_backward(const Operation& op, int64_t slice) {
    const int64_t in = values_[op.inputs[0]].features, out = values_[op.output].features;
    const at::Tensor dy = take(op.output, slice);
    if (op.inputs[0] == net_.input) return;
    const at::Tensor dx = empty_image(op.inputs[0], slice);
    for (int64_t n = 0; n < examples(slice); ++n) {
      images_.max_pool_backward(window(op), image(op.inputs[0], slice) + n * in, image(op.output, slice) + n * out,
                                data(dy) + n * out, data(dx) + n * in);
    }
    give(op.inputs[0], slice, dx);
  }

  // Mean over the places: image -> columns.
  void global_pool(const Operation& op, int64_t slice) {
    const Value& in = values_[op.inputs[0]];
    R* to = as<R>(values_[op.output].columns);
    const int64_t period = std::lcm(in.channels, kLane);
    std::vector<double> sums(period);
    for (int64_t n = 0; n < examples(slice); ++n) {
      images_.column_sums(image(op.inputs[0], slice) + n * in.features, in.features, period, sums.data());
      for (int64_t c = 0; c < in.channels; ++c) {
        double sum = 0;
        for (int64_t p = c; p < period; p += in.channels) sum += sums[p];
        to[c * lanes_ + first(slice) + n] = static_cast<R>(sum / static_cast<double>(in.places));
      }
    }
  }

  void global_pool_backward(const Operation& op, int64_t slice) {
    if (op.inputs[0] == net_.input) return;
    const Value& in = values_[op.inputs[0]];
    const R* d = as<R>(values_[op.output].gradient);
    const at::Tensor dx = empty_image(op.inputs[0], slice);
    std::vector<R> one(in.channels);
    S* to = data(dx);
    for (int64_t n = 0; n < examples(slice); ++n) {
      for (int64_t c = 0; c < in.channels; ++c) one[c] = d[c * lanes_ + first(slice) + n] / static_cast<R>(in.places);
      images_.narrow(one.data(), to, in.channels);
      for (int64_t p = 1; p < in.places; ++p) std::memcpy(to + p * in.channels, to, in.channels * sizeof(S));
      to += in.features;
    }
    give(op.inputs[0], slice, dx);
  }

  // ---- Linear

  // An image as a linear layer reads it: (H,W,C) -> C,H,W, the batch innermost.
  void flatten(const Value& v, const S* from, int64_t slice) {
    R* to = as<R>(v.columns);
    std::vector<R> wide(v.features);
    for (int64_t n = 0; n < examples(slice); ++n) {
      images_.widen(from + n * v.features, wide.data(), v.features);
      for (int64_t c = 0; c < v.channels; ++c) {
        for (int64_t p = 0; p < v.places; ++p) to[(c * v.places + p) * lanes_ + first(slice) + n] = wide[p * v.channels + c];
      }
    }
  }

  void unflatten_gradient(int value, int64_t slice) {
    const Value& v = values_[value];
    const R* d = as<R>(v.gradient);
    const at::Tensor dx = empty_image(value, slice);
    std::vector<R> wide(v.features);
    for (int64_t n = 0; n < examples(slice); ++n) {
      for (int64_t c = 0; c < v.channels; ++c) {
        for (int64_t p = 0; p < v.places; ++p) wide[p * v.channels + c] = d[(c * v.places + p) * lanes_ + first(slice) + n];
      }
      images_.narrow(wide.data(), data(dx) + n * v.features, v.features);
    }
    give(value, slice, dx);
  }

  // y(K, lanes) = w(K, C) x(C, lanes) + bias
  void linear(const Operation& op, int64_t slice) {
    const Value &in = values_[op.inputs[0]], &out = values_[op.output];
    if (in.image) flatten(in, image(op.inputs[0], slice), slice);
    const Product<R> p = {.a = parameter(store_.weights, op.weight),
                          .a_row = in.features,
                          .a_step = 1,
                          .b = as<R>(in.columns),
                          .b_row = lanes_,
                          .inner = in.features,
                          .out = as<R>(out.columns),
                          .out_row = lanes_,
                          .bias = op.bias >= 0 ? parameter(store_.weights, op.bias) : nullptr,
                          .relu = op.fused_relu,
                          .accumulate = false};
    vectors_.product(p, 0, out.features, first(slice), first(slice) + lanes(slice));
  }

  // dx(C, lanes) = w^T dy
  void linear_backward(const Operation& op, int64_t slice) {
    Value &in = values_[op.inputs[0]], &out = values_[op.output];
    if (op.fused_relu) gate_columns(out, slice);
    if (op.inputs[0] == net_.input) return;
    const Product<R> dx = {.a = parameter(store_.weights, op.weight),
                           .a_row = 1,
                           .a_step = in.features,
                           .b = as<R>(out.gradient),
                           .b_row = lanes_,
                           .inner = out.features,
                           .out = as<R>(in.gradient),
                           .out_row = lanes_,
                           .bias = nullptr,
                           .relu = false,
                           .accumulate = !in.image && in.ready[slice]};
    vectors_.product(dx, 0, in.features, first(slice), first(slice) + lanes(slice));
    if (in.image) {
      unflatten_gradient(op.inputs[0], slice);
    } else {
      in.ready[slice] = true;
    }
  }

  // dw(K, C) = dy(K, N) x(N, C); dbias(K) = row sums of dy
  void join_linear(const Operation& op) {
    const Value &in = values_[op.inputs[0]], &out = values_[op.output];
    R* dy = as<R>(out.gradient);
    pool_.parallel(tasks_for(in.features, kRowsPerTask), [&](int64_t task) {
      const int64_t c0 = task * kRowsPerTask, c1 = std::min(in.features, c0 + kRowsPerTask);
      vectors_.transpose(as<R>(in.columns) + c0 * lanes_, lanes_, as<R>(in.rows) + c0, in.row_stride, c1 - c0, lanes_);
    });
    const Product<R> dw = {.a = dy,
                           .a_row = lanes_,
                           .a_step = 1,
                           .b = as<R>(in.rows),
                           .b_row = in.row_stride,
                           .inner = n_,
                           .out = parameter(store_.gradients, op.weight),
                           .out_row = in.features,
                           .bias = nullptr,
                           .relu = false,
                           .accumulate = false};
    pool_.parallel(tasks_for(out.features, kRowsPerTask), [&](int64_t task) {
      const int64_t k0 = task * kRowsPerTask, k1 = std::min(out.features, k0 + kRowsPerTask);
      vectors_.product(dw, k0, k1, 0, in.features);
      if (op.bias >= 0) {
        vectors_.row_sum(dy + k0 * lanes_, lanes_, parameter(store_.gradients, op.bias) + k0, k1 - k0, lanes_);
      }
    });
  }

  struct Block {
    const Operation* op;
    int64_t first, last;  // rows of its weight
  };

  ParameterStore& store_;
  Pool& pool_;
  const LayerKernels<S>& images_;
  const Kernels<R>& vectors_;
  const CompiledNetwork& net_;
  const int64_t slice_;
  int64_t capacity_ = 0;
  std::vector<Value> values_;
  std::vector<Layer> layers_;
  std::vector<Block> blocks_;
  std::vector<Stage> forward_, backward_, evaluation_;
  std::vector<S> pixels_;  // (channels, 256): the normalised bytes
  std::vector<int32_t> labels_;
  std::vector<R> losses_;
  std::vector<Moments> moments_;  // per slice
  std::vector<std::exception_ptr> errors_;
  const Statistics* statistics_ = nullptr;
  int64_t n_ = 0, lanes_ = 0, slices_ = 0;
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
