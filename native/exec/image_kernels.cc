#include "exec/image_kernels.h"

#include <ATen/ops/ones.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <cstring>

#include "kernels/kernels.h"

namespace lth {
namespace {

using device::Bf16;

Bf16* bits(const at::Tensor& images) { return reinterpret_cast<Bf16*>(images.data_ptr()); }

at::Tensor contiguous(const at::Tensor& images) { return images.contiguous(at::MemoryFormat::ChannelsLast); }

// Examples times height times width.
int64_t places_of(const at::Tensor& images) { return images.numel() / images.size(1); }

template <typename Entry>
at::Tensor table_of(const std::vector<Entry>& entries, const at::Device& device) {
  const at::Tensor host = at::empty({static_cast<int64_t>(entries.size() * sizeof(Entry))}, at::TensorOptions().dtype(at::kByte));
  std::memcpy(host.data_ptr(), entries.data(), static_cast<size_t>(host.numel()));
  return host.to(device);
}

// That join all of them.
int blocks_of(const std::vector<device::Join>& joins) {
  if (joins.empty()) return 0;
  const device::Join& last = joins.back();
  return last.first_block + static_cast<int>(device::ceil_div(int64_t{last.units} * last.channels * last.taps, device::kJoined));
}

// Of the three kernels of one kind, of 2, 4 and 8 vectors.
DeviceKernel of_vectors(DeviceKernel first, int vectors) {
  return static_cast<DeviceKernel>(static_cast<int>(first) + (vectors == 2 ? 0 : vectors == 4 ? 1 : 2));
}

device::Windows windows_of(const Operation& op, const at::Tensor& x, const at::Tensor& y) {
  const auto of = [](int64_t n) { return static_cast<int>(n); };
  return {of(x.size(0)),    of(x.size(1)),    of(x.size(2)),    of(x.size(3)),    of(y.size(2)),     of(y.size(3)),
          of(op.kernel.h), of(op.kernel.w), of(op.stride.h), of(op.stride.w), of(op.padding.h), of(op.padding.w)};
}

// The only reader of the network's pictures, where it is a convolution of stride 2 over few channels; or null.
const Operation* folded_of(const CompiledNetwork& net) {
  const Operation* reader = nullptr;
  for (const Operation& op : net.operations) {
    if (std::find(op.inputs.begin(), op.inputs.end(), net.input) == op.inputs.end()) continue;
    if (reader) return nullptr;
    reader = &op;
  }
  const bool folds = reader && reader->type == Operation::kConvolution && reader->stride.h == 2 && reader->stride.w == 2 &&
                     net.values[net.input].shape[0] <= device::kFoldedChannels;
  return folds ? reader : nullptr;
}

c10::Stream current_stream(const at::Device& device) { return c10::impl::VirtualGuardImpl(device.type()).getStream(device); }

// More channels than these are more work than memory: LibTorch's products, that of cuDNN, are closer to the device's peak.
constexpr int64_t kMostWeights = 64 * 64;
// Places of dy: of more, those of few channels too.
constexpr int64_t kMostPlaces = int64_t{1} << 18;
// Of a linear layer: of more, cuBLAS is the faster one.
constexpr int64_t kMostProducts = 1 << 20;

}  // namespace

std::unique_ptr<ImageKernels> ImageKernels::of(ParameterStore& store) {
  const DeviceKernels* kernels = DeviceKernels::of(store.device);
  return kernels ? std::make_unique<ImageKernels>(store, *kernels) : nullptr;
}

ImageKernels::ImageKernels(ParameterStore& store, const DeviceKernels& kernels)
    : store_(store), kernels_(kernels), beside_(store.device), forked_(store.device.type()), joined_(store.device.type()) {
  const CompiledNetwork& net = *store.network;
  const auto floats = store.weights.options();
  int64_t turned = 0, channels = device::kVector;
  std::vector<device::Weights> entries;
  for (const Operation& op : net.operations) {
    if (op.type == Operation::kConvolution) turned += 2 * padded(store.layout().parameters[op.weight].size, device::kVector);
    if (op.type == Operation::kBatchNorm || activates(op)) channels = std::max(channels, net.values[op.output].shape[0]);
  }
  turned_ = at::empty({turned}, floats.dtype(at::kBFloat16));
  turned = 0;
  int blocks = 0;
  for (const Operation& op : net.operations) {
    if (op.type == Operation::kBatchNorm) {
      const int64_t c = net.values[op.output].shape[0];
      statistics_[op.weight] = {at::empty({c}, floats), at::empty({c}, floats), at::empty({c}, floats), at::empty({c}, floats)};
    }
    if (op.type != Operation::kConvolution) continue;
    const ParameterSpec& spec = store.layout().parameters[op.weight];
    const std::vector<int64_t>& shape = spec.shape;
    const int64_t room = padded(spec.size, device::kVector);
    const at::Tensor to = turned_.narrow(0, turned, spec.size), back = turned_.narrow(0, turned + room, spec.size);
    weights_[op.weight] = {to.view({shape[0], shape[2], shape[3], shape[1]}).permute({0, 3, 1, 2}), back};
    entries.push_back({vector(store.weights, op.weight), bits(to), std::max(shape[0], shape[1]) <= device::kConvolveChannels ? bits(back) : nullptr,
                       static_cast<int>(shape[0]), static_cast<int>(shape[1]), static_cast<int>(shape[2] * shape[3]), blocks});
    turned += 2 * room;
    blocks += static_cast<int>(device::ceil_div(spec.size, device::kThreads * device::kPerThread));
  }
  folded_ = folded_of(net);
  if (folded_) {
    const std::vector<int64_t>& shape = store.layout().parameters[folded_->weight].shape;
    const auto of = [](int64_t extent) { return static_cast<int>(extent); };
    folding_ = {of(shape[0]), of(shape[1]), of(shape[2]), of(shape[3])};
    folded_weight_ = at::empty({shape[0], device::kFolded, (shape[2] + 1) / 2, (shape[3] + 1) / 2}, floats.dtype(at::kBFloat16),
                               at::MemoryFormat::ChannelsLast);
  }
  turn_entries_ = table_of(entries, store.device);
  turn_count_ = static_cast<int>(entries.size());
  turn_blocks_ = static_cast<unsigned>(blocks);
  partial_ = at::empty({device::partial_sums(channels)}, floats);
  counters_ = at::zeros({device::counters(channels)}, floats.dtype(at::kInt));
  coefficients_ = at::empty({3, channels}, floats);
  ones_ = at::ones({channels}, floats);
  zeros_ = at::zeros({channels}, floats);
  unused_ = at::empty({channels}, floats);
  done_ = at::zeros({1}, floats.dtype(at::kInt));
}

TensorBatch ImageKernels::assemble(const BatchLoader::Parts& parts, const Batch& batch) const {
  const std::vector<int64_t>& shape = batch.data->shape;
  const int64_t n = parts.where.size(1);
  int64_t channels = shape[0], height = shape[1], width = shape[2];
  if (folded_) {
    const std::vector<int64_t>& y = store_.network->values[folded_->output].shape;
    channels = device::kFolded;
    height = y[1] + folded_weight_.size(2) - 1;
    width = y[2] + folded_weight_.size(3) - 1;
  }
  TensorBatch out;
  out.x = at::empty({n, channels, height, width}, parts.scale.options().dtype(at::kBFloat16), at::MemoryFormat::ChannelsLast);
  out.labels = at::empty({n}, parts.labels.options());
  const device::Assemble p = {parts.images.data_ptr<uint8_t>(),
                              reinterpret_cast<const long long*>(parts.labels.data_ptr<int64_t>()),
                              parts.where.data_ptr<int32_t>(),
                              parts.scale.data_ptr<float>(),
                              parts.shift.data_ptr<float>(),
                              bits(out.x),
                              reinterpret_cast<long long*>(out.labels.data_ptr<int64_t>()),
                              static_cast<int>(n),
                              static_cast<int>(shape[0]),
                              static_cast<int>(shape[1]),
                              static_cast<int>(shape[2]),
                              !batch.crops.empty()};
  const device::Grid grid = {device::blocks_for(n * height * width), 1, 1};
  if (folded_) {
    const auto of = [](int64_t extent) { return static_cast<int>(extent); };
    const device::AssembleFolded folded = {p, of(height), of(width), of(folded_->padding.h), of(folded_->padding.w)};
    kernels_.launch(DeviceKernel::kAssembleFolded, grid, folded);
  } else {
    kernels_.launch(DeviceKernel::kAssemble, grid, p);
  }
  return out;
}

void ImageKernels::begin() {
  abandon();
  made_.clear();
  if (turn_count_ == 0) return;
  const device::TurnWeights p = {reinterpret_cast<const device::Weights*>(turn_entries_.data_ptr()), turn_count_};
  kernels_.launch(DeviceKernel::kTurnWeights, {turn_blocks_, 1, 1}, p);
  if (!folded_) return;
  const device::FoldWeights fold = {folding_, vector(store_.weights, folded_->weight), bits(folded_weight_)};
  kernels_.launch(DeviceKernel::kFoldWeights, {device::blocks_for(folded_weight_.numel() / device::kFolded), 1, 1}, fold);
}

void ImageKernels::folded_gradient(const at::Tensor& gradient) const {
  const at::Tensor dw = contiguous(gradient);
  const device::UnfoldGradient p = {folding_, bits(dw), vector(store_.gradients, folded_->weight)};
  kernels_.launch(DeviceKernel::kUnfoldGradient, {device::blocks_for(store_.layout().parameters[folded_->weight].size), 1, 1}, p);
}

ImageKernels::~ImageKernels() {
  try {
    abandon();
  } catch (const std::exception&) {
    // The device fails, and with it all that it would still have read.
  }
}

void ImageKernels::abandon() {
  if (held_.empty()) return;
  wait_for_gradients();
  joins_.clear();
}

void ImageKernels::wait_for_gradients() {
  joined_.record(beside_.stream());
  joined_.block(current_stream(store_.device));
  held_.clear();
}

at::Tensor ImageKernels::convolve(const Operation& op, const at::Tensor& in, const at::Tensor& weights, Pair padding,
                                  int64_t units, const device::Moments* moments) const {
  if (op.bias >= 0 || op.stride.h != 1 || op.stride.w != 1 || padding.h < 0 || padding.w < 0) return {};
  const auto of = [](int64_t n) { return static_cast<int>(n); };
  const int64_t out_height = in.size(2) + 2 * padding.h - op.kernel.h + 1;
  const int64_t out_width = in.size(3) + 2 * padding.w - op.kernel.w + 1;
  device::Convolve p{};
  p.examples = of(in.size(0));
  p.channels = of(in.size(1));
  p.units = of(units);
  p.height = of(in.size(2));
  p.width = of(in.size(3));
  p.out_height = of(out_height);
  p.out_width = of(out_width);
  p.padding_h = of(padding.h);
  p.padding_w = of(padding.w);
  const auto plan = device::plan_convolve(p, op.kernel.h, op.kernel.w);
  if (!plan) return {};
  const at::Tensor x = contiguous(in);
  const at::Tensor y = at::empty({in.size(0), units, out_height, out_width}, x.options(), at::MemoryFormat::ChannelsLast);
  p.x = bits(x);
  p.weights = bits(weights);
  p.y = bits(y);
  p.sums_up = moments != nullptr;
  if (moments) p.moments = *moments;
  const int which = 2 * (plan->tiles - 1) + (plan->taps == 9 ? 1 : 0);
  kernels_.launch(static_cast<DeviceKernel>(static_cast<int>(DeviceKernel::kConvolve11) + which), plan->grid, p);
  return y;
}

at::Tensor ImageKernels::convolve(const Operation& op, const at::Tensor& x, const Operation* norm, double momentum) {
  const at::Tensor& weights = weights_.at(op.weight).to;
  if (!norm) return convolve(op, x, weights, op.padding, weights.size(0), nullptr);
  const std::vector<int64_t>& shape = store_.network->values[op.output].shape;
  const device::Moments moments = moments_of(*norm, x.size(0) * shape[1] * shape[2], momentum);
  const at::Tensor y = convolve(op, x, weights, op.padding, weights.size(0), &moments);
  if (y.defined()) made_.insert(norm->weight);
  return y;
}

at::Tensor ImageKernels::input_gradient(const Operation& op, const at::Tensor& x, const at::Tensor& dy) const {
  return convolve(op, dy, weights_.at(op.weight).back, {op.kernel.h - 1 - op.padding.h, op.kernel.w - 1 - op.padding.w}, x.size(1), nullptr);
}

bool ImageKernels::takes(const Operation& op) const {
  const std::vector<int64_t>& shape = store_.network->values[op.output].shape;
  return op.type == Operation::kBatchNorm && shape.size() == 3 && shape[0] % device::kVector == 0;
}

device::Moments ImageKernels::moments_of(const Operation& norm, int64_t places, double momentum) const {
  const Statistics& s = statistics_.at(norm.weight);
  return {nullptr,
          places,
          static_cast<int>(s.mean.size(0)),
          static_cast<float>(norm.epsilon),
          static_cast<float>(momentum),
          vector(store_.weights, norm.weight),
          vector(store_.weights, norm.bias),
          vector(store_.weights, norm.running_mean),
          vector(store_.weights, norm.running_variance),
          s.mean.data_ptr<float>(),
          s.inverse_deviation.data_ptr<float>(),
          s.scale.data_ptr<float>(),
          s.offset.data_ptr<float>(),
          partial_.data_ptr<float>(),
          reinterpret_cast<unsigned*>(counters_.data_ptr<int32_t>())};
}

at::Tensor ImageKernels::normalise(const Operation& op, const at::Tensor& in, const at::Tensor& other, double momentum) {
  const at::Tensor x = contiguous(in), more = other.defined() ? contiguous(other) : other;
  const at::Tensor y = at::empty_like(x, x.options(), at::MemoryFormat::ChannelsLast);
  const int64_t places = places_of(x), channels = x.size(1);
  if (made_.erase(op.weight) == 0) {
    device::Moments moments = moments_of(op, places, momentum);
    moments.x = bits(x);
    const int vectors = device::summed_vectors(places, channels);
    kernels_.launch(of_vectors(DeviceKernel::kMoments2, vectors), device::grid_of_sums(places, channels, vectors), moments);
  }
  const Statistics& s = statistics_.at(op.weight);
  const device::Normalise pass = {bits(x), more.defined() ? bits(more) : nullptr, bits(y), places, static_cast<int>(channels), op.fused_relu,
                                 s.scale.data_ptr<float>(), s.offset.data_ptr<float>()};
  kernels_.launch(DeviceKernel::kNormalise, device::grid_of_pass(places, channels), pass);
  return y;
}

ImageKernels::Gradients ImageKernels::normalise_backward(const Operation& op, const at::Tensor& one, const at::Tensor& two,
                                                         const at::Tensor& in, const at::Tensor& y) {
  const at::Tensor d0 = contiguous(one), d1 = two.defined() ? contiguous(two) : two, x = contiguous(in);
  const int64_t places = places_of(x), channels = x.size(1);
  Gradients out;
  out.x = at::empty_like(x, x.options(), at::MemoryFormat::ChannelsLast);
  if (op.inputs.size() > 1) out.other = at::empty_like(out.x);
  const Statistics& s = statistics_.at(op.weight);
  float *const of_d = coefficients_.data_ptr<float>(), *const of_x = of_d + coefficients_.size(1), *const offset = of_x + coefficients_.size(1);
  const bool relu_of_x = op.fused_relu && op.inputs.size() == 1;
  device::OfBatchNorm of = {bits(d0),
                            d1.defined() ? bits(d1) : nullptr,
                            op.fused_relu && !relu_of_x ? bits(y) : nullptr,
                            bits(x),
                            places,
                            static_cast<int>(channels),
                            relu_of_x ? s.scale.data_ptr<float>() : nullptr,
                            relu_of_x ? s.offset.data_ptr<float>() : nullptr};
  const device::GradientMoments moments = {of,
                                           out.other.defined() ? bits(out.other) : nullptr,
                                           vector(store_.weights, op.weight),
                                           s.mean.data_ptr<float>(),
                                           s.inverse_deviation.data_ptr<float>(),
                                           vector(store_.gradients, op.weight),
                                           vector(store_.gradients, op.bias),
                                           of_d,
                                           of_x,
                                           offset,
                                           partial_.data_ptr<float>(),
                                           reinterpret_cast<unsigned*>(counters_.data_ptr<int32_t>())};
  sum_gradients(moments);
  if (out.other.defined()) of = {bits(out.other), nullptr, nullptr, bits(x), places, of.channels, nullptr, nullptr};  // which is d already
  const device::NormaliseBackward pass = {of, bits(out.x), of_d, of_x, offset};
  kernels_.launch(DeviceKernel::kNormaliseBackward, device::grid_of_pass(places, channels), pass);
  return out;
}

void ImageKernels::sum_gradients(const device::GradientMoments& moments) const {
  const int64_t places = moments.of.places, channels = moments.of.channels;
  const int vectors = device::summed_vectors(places, channels);
  kernels_.launch(of_vectors(DeviceKernel::kGradientMoments2, vectors), device::grid_of_sums(places, channels, vectors), moments);
}

bool ImageKernels::activates(const Operation& op) const {
  return op.type == Operation::kConvolution && op.bias >= 0 && store_.network->values[op.output].shape[0] % device::kVector == 0;
}

at::Tensor ImageKernels::activate(const Operation& op, const at::Tensor& in) const {
  const at::Tensor x = contiguous(in), y = at::empty_like(x, x.options(), at::MemoryFormat::ChannelsLast);
  const int64_t places = places_of(x), channels = x.size(1);
  const device::Normalise pass = {bits(x), nullptr, bits(y), places, static_cast<int>(channels), op.fused_relu,
                                 ones_.data_ptr<float>(), vector(store_.weights, op.bias)};
  kernels_.launch(DeviceKernel::kNormalise, device::grid_of_pass(places, channels), pass);
  return y;
}

at::Tensor ImageKernels::activate_backward(const Operation& op, const at::Tensor& one, const at::Tensor& two, const at::Tensor& y) {
  const at::Tensor d0 = contiguous(one), d1 = two.defined() ? contiguous(two) : two;
  const bool as_it_is = !op.fused_relu && !d1.defined();
  const at::Tensor dx = as_it_is ? d0 : at::empty_like(y, y.options(), at::MemoryFormat::ChannelsLast);
  const device::OfBatchNorm of = {bits(d0),     d1.defined() ? bits(d1) : nullptr,    op.fused_relu ? bits(y) : nullptr, bits(y),
                                  places_of(y), static_cast<int>(y.size(1)), nullptr, nullptr};
  // The gradient of the shift of a batch norm that leaves x as it is; the other one's is for nobody.
  float* const scratch = coefficients_.data_ptr<float>();
  sum_gradients({of, as_it_is ? nullptr : bits(dx), ones_.data_ptr<float>(), zeros_.data_ptr<float>(), ones_.data_ptr<float>(),
                 unused_.data_ptr<float>(), vector(store_.gradients, op.bias), scratch, scratch + coefficients_.size(1),
                 scratch + 2 * coefficients_.size(1), partial_.data_ptr<float>(), reinterpret_cast<unsigned*>(counters_.data_ptr<int32_t>())});
  return dx;
}

ImageKernels::Pooled ImageKernels::max_pool(const Operation& op, const at::Tensor& in) const {
  if (in.size(1) % device::kVector != 0 || op.kernel.h * op.kernel.w > device::kMostTaps) return {};
  const at::Tensor x = contiguous(in);
  const std::vector<int64_t>& shape = store_.network->values[op.output].shape;
  Pooled out;
  out.y = at::empty({x.size(0), shape[0], shape[1], shape[2]}, x.options(), at::MemoryFormat::ChannelsLast);
  out.which = at::empty(out.y.sizes(), x.options().dtype(at::kByte), at::MemoryFormat::ChannelsLast);
  const device::MaxPool p = {bits(x), bits(out.y), out.which.data_ptr<uint8_t>(), windows_of(op, x, out.y)};
  kernels_.launch(DeviceKernel::kMaxPool, {device::blocks_for(out.y.numel() / device::kVector), 1, 1}, p);
  return out;
}

at::Tensor ImageKernels::max_pool_backward(const Operation& op, const at::Tensor& d, const at::Tensor& which, const at::Tensor& in) const {
  const at::Tensor dy = contiguous(d), dx = at::empty(in.sizes(), in.options(), at::MemoryFormat::ChannelsLast);
  const device::MaxPoolBackward p = {bits(dy), which.data_ptr<uint8_t>(), bits(dx), windows_of(op, in, dy)};
  kernels_.launch(DeviceKernel::kMaxPoolBackward, {device::blocks_for(dx.numel() / device::kVector), 1, 1}, p);
  return dx;
}

bool ImageKernels::weight_gradient(const Operation& op, const at::Tensor& in, const at::Tensor& d) {
  const std::vector<int64_t>& shape = store_.layout().parameters[op.weight].shape;
  if (shape[0] * shape[1] > kMostWeights || places_of(d) > kMostPlaces) return false;
  const auto of = [](int64_t n) { return static_cast<int>(n); };
  device::WeightGradient p{};
  p.examples = of(in.size(0));
  p.channels = of(shape[1]);
  p.units = of(shape[0]);
  p.height = of(in.size(2));
  p.width = of(in.size(3));
  p.out_height = of(d.size(2));
  p.out_width = of(d.size(3));
  p.kernel_h = of(op.kernel.h);
  p.kernel_w = of(op.kernel.w);
  p.stride_h = of(op.stride.h);
  p.stride_w = of(op.stride.w);
  p.padding_h = of(op.padding.h);
  p.padding_w = of(op.padding.w);
  const auto plan = device::plan_weight_gradient(p);
  if (!plan) return false;
  // Never less than any batch needs, for recorded updates know where it is.
  at::Tensor& sums = sums_[op.weight];
  if (!sums.defined()) sums = at::empty({plan->most * plan->size}, store_.gradients.options());
  const at::Tensor x = contiguous(in), dy = contiguous(d);
  p.x = bits(x);
  p.dy = bits(dy);
  p.partial = sums.data_ptr<float>();
  const auto first = static_cast<int>(plan->taps == 1 ? DeviceKernel::kWeightGradient111 : DeviceKernel::kWeightGradient119);
  const int which = first + 2 * (plan->unit_tiles - 1) + (plan->channel_tiles - 1);
  const c10::Stream stream = beside_.stream();
  forked_.record(current_stream(store_.device));
  forked_.block(stream);
  held_.insert(held_.end(), {x, dy});
  {
    const c10::StreamGuard guard(stream);
    kernels_.launch(static_cast<DeviceKernel>(which), plan->grid, p);
  }
  joins_.push_back({p.partial, vector(store_.gradients, op.weight), of(plan->grid.x), p.units, p.channels,
                    p.kernel_h * p.kernel_w, blocks_of(joins_)});
  return true;
}

void ImageKernels::join() {
  if (joins_.empty()) return;
  // The same layers with as many blocks each make the same table: made by the first update of a batch size, before any is
  // recorded, and never moved. Which layers are ours depends on the batch too.
  std::vector<int64_t> key;
  for (const device::Join& one : joins_) {
    key.push_back(one.gradient - store_.gradients.data_ptr<float>());
    key.push_back(one.blocks);
  }
  at::Tensor& table = tables_[key];
  if (!table.defined()) table = table_of(joins_, store_.device);
  const int blocks = blocks_of(joins_);
  const device::JoinGradients p = {reinterpret_cast<const device::Join*>(table.data_ptr()), static_cast<int>(joins_.size())};
  joins_.clear();
  wait_for_gradients();
  kernels_.launch(DeviceKernel::kJoinGradients, {static_cast<unsigned>(blocks), 1, 1}, p);
}

at::Tensor ImageKernels::pool(const at::Tensor& in) const {
  const int64_t n = in.size(0), channels = in.size(1);
  if (in.dim() != 4 || channels % device::kVector != 0) return {};
  const at::Tensor x = contiguous(in), y = at::empty({n, channels}, store_.weights.options());
  const device::Pool p = {bits(x), y.data_ptr<float>(), static_cast<int>(in.size(2) * in.size(3)), static_cast<int>(channels)};
  const int64_t parts = device::ceil_div(channels / device::kVector, device::kPooled);
  kernels_.launch(DeviceKernel::kPool, {static_cast<unsigned>(n), static_cast<unsigned>(parts), 1}, p);
  return y;
}

at::Tensor ImageKernels::pool_backward(const at::Tensor& d, const at::Tensor& x) const {
  if (x.dim() != 4 || x.size(1) % device::kVector != 0) return {};
  const at::Tensor dy = d.contiguous(), dx = at::empty_like(x, x.options(), at::MemoryFormat::ChannelsLast);
  const device::PoolBackward p = {dy.data_ptr<float>(), bits(dx), static_cast<int>(x.size(0)), static_cast<int>(x.size(2) * x.size(3)),
                                  static_cast<int>(x.size(1))};
  kernels_.launch(DeviceKernel::kPoolBackward, {device::blocks_for(x.numel() / device::kVector), 1, 1}, p);
  return dx;
}

bool ImageKernels::few_products(const Operation& op, const at::Tensor& x) const {
  return x.numel() * store_.layout().parameters[op.weight].shape[0] <= kMostProducts;
}

at::Tensor ImageKernels::linear(const Operation& op, const at::Tensor& in) const {
  if (!few_products(op, in)) return {};
  const int64_t n = in.size(0), units = store_.layout().parameters[op.weight].shape[0];
  const at::Tensor x = in.contiguous(), y = at::empty({n, units}, x.options());
  const device::Linear p = {x.data_ptr<float>(), vector(store_.weights, op.weight),
                            op.bias >= 0 ? vector(store_.weights, op.bias) : nullptr, y.data_ptr<float>(),
                            static_cast<int>(n), static_cast<int>(in.size(1)), static_cast<int>(units)};
  kernels_.launch(DeviceKernel::kLinear, {static_cast<unsigned>(device::ceil_div(n * units, device::kThreads / 32)), 1, 1}, p);
  return y;
}

at::Tensor ImageKernels::linear_backward(const Operation& op, const at::Tensor& in, const at::Tensor& d) const {
  if (!few_products(op, in)) return {};
  const int64_t n = in.size(0), channels = in.size(1), units = d.size(1);
  const at::Tensor x = in.contiguous(), dy = d.contiguous(), dx = at::empty_like(x);
  const int sizes[] = {static_cast<int>(n), static_cast<int>(channels), static_cast<int>(units)};
  const device::LinearGradient of_weights = {x.data_ptr<float>(), dy.data_ptr<float>(), vector(store_.gradients, op.weight),
                                             op.bias >= 0 ? vector(store_.gradients, op.bias) : nullptr, sizes[0], sizes[1], sizes[2]};
  const int64_t parts = device::ceil_div(channels, device::kGradients);
  kernels_.launch(DeviceKernel::kLinearGradient, {static_cast<unsigned>(units), static_cast<unsigned>(parts), 1}, of_weights);
  const device::LinearBackward of_x = {dy.data_ptr<float>(), vector(store_.weights, op.weight), dx.data_ptr<float>(),
                                       sizes[0], sizes[1], sizes[2]};
  kernels_.launch(DeviceKernel::kLinearBackward, {device::blocks_for(n * channels), 1, 1}, of_x);
  return dx;
}

ImageKernels::Loss ImageKernels::loss(const at::Tensor& logits, const at::Tensor& labels) const {
  const at::Tensor of = logits.to(at::kFloat).contiguous();
  const int64_t n = of.size(0);
  Loss out = {at::empty({2}, of.options().dtype(at::kDouble)), at::empty_like(of)};
  const at::Tensor loss_of = at::empty({n}, of.options()), right = at::empty({n}, of.options().dtype(at::kInt));
  const device::Loss p = {of.data_ptr<float>(),
                          reinterpret_cast<const long long*>(labels.data_ptr<int64_t>()),
                          out.d_logits.data_ptr<float>(),
                          out.measured.data_ptr<double>(),
                          loss_of.data_ptr<float>(),
                          right.data_ptr<int32_t>(),
                          reinterpret_cast<unsigned*>(done_.data_ptr<int32_t>()),
                          static_cast<int>(n),
                          static_cast<int>(of.size(1))};
  kernels_.launch(DeviceKernel::kLoss, {static_cast<unsigned>(device::ceil_div(n, device::kThreads / 32)), 1, 1}, p);
  return out;
}

}  // namespace lth
