#include "exec/aten_batch.h"

namespace lth {

BatchResult measure(const at::Tensor& log_p, const at::Tensor& labels) {
  BatchResult result;
  result.loss = -log_p.gather(1, labels.unsqueeze(1)).sum(at::kDouble).item<double>();
  result.correct = at::argmax(log_p, 1).eq(labels).sum().item<int64_t>();
  return result;
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

at::Tensor BatchLoader::augmented(const Batch& batch) const {
  const Dataset& data = *batch.data;
  const int64_t n = static_cast<int64_t>(batch.examples.size()), channels = scale_.size(1);
  const at::Tensor host =
      at::empty({n, channels, data.features / channels}, at::TensorOptions().dtype(at::kByte));
  for (int64_t i = 0; i < n; ++i) {
    augment_image(data.images.data() + batch.examples[i] * data.features, data.shape[0], data.shape[1], data.shape[2],
                  batch.crops[i], host.data_ptr<uint8_t>() + i * data.features);
  }
  return host.to(options_.device());
}

TensorBatch BatchLoader::load(const Batch& batch) {
  Resident& from = resident(batch.data);
  const at::Tensor index = at::from_blob(const_cast<int32_t*>(batch.examples.data()),
                                         {static_cast<int64_t>(batch.examples.size())},
                                         at::TensorOptions().dtype(at::kInt))
                               .to(options_.device());
  TensorBatch out;
  out.labels = at::index_select(from.labels, 0, index);
  const at::Tensor bytes = batch.crops.empty() ? at::index_select(from.images, 0, index) : augmented(batch);
  out.x = bytes.to(options_.dtype()) * scale_ + shift_;
  std::vector<int64_t> shape = {static_cast<int64_t>(batch.examples.size())};
  shape.insert(shape.end(), batch.data->shape.begin(), batch.data->shape.end());
  out.x = out.x.reshape(shape);
  return out;
}

}  // namespace lth
