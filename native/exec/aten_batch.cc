#include "exec/aten_batch.h"

#include <c10/core/impl/VirtualGuardImpl.h>

#include <numeric>

namespace lth {

at::Tensor measure(const at::Tensor& log_p, const at::Tensor& labels, double smoothing) {
  at::Tensor loss = -log_p.gather(1, labels.unsqueeze(1)).sum(at::kDouble);
  if (smoothing != 0) loss = loss * (1 - smoothing) - log_p.sum(at::kDouble) * (smoothing / static_cast<double>(log_p.size(1)));
  const at::Tensor correct = at::argmax(log_p, 1).eq(labels).sum().to(at::kDouble);
  return at::stack({loss, correct});
}

BatchResult read(const at::Tensor& measured) {
  const at::Tensor host = measured.cpu();
  const double* values = host.const_data_ptr<double>();
  return {values[0], static_cast<int64_t>(values[1])};
}

at::Tensor kept_by_dropout(const Batch& batch, int layer, int64_t elements, double probability) {
  at::Tensor kept = at::empty({static_cast<int64_t>(batch.examples.size()), elements}, at::TensorOptions().dtype(at::kByte));
  uint8_t* row = kept.data_ptr<uint8_t>();
  for (int32_t example : batch.examples) {
    draw_dropout(*batch.dropout, layer, example, elements, probability, [&](int64_t element, bool stays) { row[element] = stays; });
    row += elements;
  }
  return kept;
}

void move_towards(ParameterStore& store, const std::vector<BatchStatistics>& batch, const Statistics& how) {
  for (const BatchStatistics& one : batch) {
    const double momentum = how.momentum(one.momentum);
    if (momentum == 0) continue;
    store.view(store.weights, one.mean).lerp_(one.batch_mean, momentum);
    store.view(store.weights, one.variance).lerp_(one.batch_variance, momentum);
  }
}

BatchLoader::BatchLoader(const ParameterStore& store, Normaliser normaliser)
    : BatchLoader(store.weights.options(), std::move(normaliser)) {}

BatchLoader::BatchLoader(at::TensorOptions options, Normaliser normaliser) : options_(options) {
  const int64_t channels = static_cast<int64_t>(normaliser.scale.size());
  const auto f64 = at::TensorOptions().dtype(at::kDouble);
  scale_ = at::from_blob(normaliser.scale.data(), {1, channels, 1}, f64).clone().to(options_);
  shift_ = at::from_blob(normaliser.shift.data(), {1, channels, 1}, f64).clone().to(options_);
}

BatchLoader::Resident& BatchLoader::resident(const Dataset* data) {
  for (Resident& r : residents_) {
    if (r.data == data) return r;
  }
  const int64_t channels = scale_.size(1);
  const at::Tensor images = at::from_blob(const_cast<uint8_t*>(data->images.data()),
                                          {data->count, channels, data->features / channels},
                                          at::TensorOptions().dtype(at::kByte));
  at::Tensor labels = at::empty({data->count}, at::TensorOptions().dtype(at::kLong));
  std::copy(data->labels.begin(), data->labels.end(), labels.data_ptr<int64_t>());
  // On the CPU the images are a view of the data set, which outlives the session.
  residents_.push_back({data, images.to(options_.device()), labels.to(options_.device())});
  return residents_.back();
}

BatchLoader::Copied BatchLoader::room(at::IntArrayRef shape, at::ScalarType type) const {
  const bool cpu = options_.device().is_cpu();
  const auto options = at::TensorOptions().dtype(type);
  const at::Tensor host = at::empty(shape, options.pinned_memory(!cpu));
  return {host, cpu ? host : at::empty(shape, options.device(options_.device()))};
}

void BatchLoader::stage(const Batch& batch) {
  const int64_t n = static_cast<int64_t>(batch.examples.size());
  Staged& staged = staged_[n];
  const c10::Device device = options_.device();
  if (!staged.where.host.defined()) {
    staged.where = room({4, n}, at::kInt);
    if (!device.is_cpu()) staged.copied.emplace(device.type());
  } else if (staged.copied) {
    staged.copied->synchronize();  // the batch before may be on its way still
  }
  int32_t* to = staged.where.host.data_ptr<int32_t>();
  if (batch.images) {
    const int64_t channels = scale_.size(1), features = batch.data->features;
    const auto bytes = at::TensorOptions().dtype(at::kByte);
    if (!staged.images.defined()) {
      staged.images = at::empty({n, channels, features / channels}, bytes.device(device));
      staged.labels = room({n}, at::kLong);
    }
    staged.images.copy_(at::from_blob(const_cast<uint8_t*>(batch.images), staged.images.sizes(), bytes), /*non_blocking=*/true);
    std::copy_n(batch.labels, n, staged.labels.host.data_ptr<int64_t>());
    std::iota(to, to + n, 0);
  } else {
    resident(batch.data);
    std::copy(batch.examples.begin(), batch.examples.end(), to);
  }
  for (int64_t i = 0; i < static_cast<int64_t>(batch.crops.size()); ++i) {
    const Crop& crop = batch.crops[i];
    to[n + i] = crop.dy;
    to[2 * n + i] = crop.dx;
    to[3 * n + i] = crop.flip;
  }
  if (!staged.copied) return;
  for (const Copied& one : {staged.where, staged.labels}) {
    if (one.host.defined()) one.device.copy_(one.host, /*non_blocking=*/true);
  }
  staged.copied->record(c10::impl::VirtualGuardImpl(device.type()).getStream(device));
  // Its memory may be another batch's as soon as this call is over.
  if (batch.images) staged.copied->synchronize();
}

at::Tensor BatchLoader::cropped(const Dataset& data, const at::Tensor& images, const at::Tensor& where) const {
  const int64_t channels = data.shape[0], height = data.shape[1], width = data.shape[2];
  const auto longs = where.options().dtype(at::kLong);
  const auto column = [&](int i) { return where.select(0, i).to(at::kLong).unsqueeze(1); };  // (N,1)
  const at::Tensor across = at::arange(width, longs).unsqueeze(0);
  const at::Tensor y = at::arange(height, longs).unsqueeze(0) + column(1);                            // (N,H)
  const at::Tensor x = at::where(column(3).ne(0), (width - 1) - across, across) + column(2);          // (N,W)
  const at::Tensor inside_y = y.ge(0).logical_and_(y.lt(height)), inside_x = x.ge(0).logical_and_(x.lt(width));
  // The nearest place inside, for what is outside and will be 0.
  const at::Tensor place = y.clamp(0, height - 1).unsqueeze(2) * width + x.clamp(0, width - 1).unsqueeze(1);  // (N,H,W)
  const at::Tensor inside = inside_y.unsqueeze(2).logical_and(inside_x.unsqueeze(1));                      // (N,H,W)
  const int64_t n = where.size(1), plane = height * width;
  const at::Tensor bytes = at::index_select(images, 0, where.select(0, 0))
                               .gather(2, place.view({n, 1, plane}).expand({n, channels, plane}));
  return bytes * inside.view({n, 1, plane}).to(at::kByte);
}

BatchLoader::Parts BatchLoader::parts(const Batch& batch) {
  const Staged& staged = staged_.at(static_cast<int64_t>(batch.examples.size()));
  if (batch.images) return {staged.images, staged.labels.device, staged.where.device, scale_, shift_};
  const Resident& from = resident(batch.data);
  return {from.images, from.labels, staged.where.device, scale_, shift_};
}

TensorBatch BatchLoader::assemble(const Batch& batch) {
  const Parts from = parts(batch);
  const at::Tensor& where = from.where;
  const at::Tensor rows = where.select(0, 0);
  TensorBatch out;
  out.labels = at::index_select(from.labels, 0, rows);
  const at::Tensor bytes =
      batch.crops.empty() ? at::index_select(from.images, 0, rows) : cropped(*batch.data, from.images, where);
  out.x = bytes.to(options_.dtype()) * from.scale + from.shift;
  std::vector<int64_t> shape = {where.size(1)};
  shape.insert(shape.end(), batch.data->shape.begin(), batch.data->shape.end());
  out.x = out.x.reshape(shape);
  return out;
}

TensorBatch BatchLoader::load(const Batch& batch) {
  stage(batch);
  return assemble(batch);
}

}  // namespace lth
