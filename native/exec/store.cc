#include "exec/store.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "analyse/prune.h"
#include "core/error.h"
#include "core/random.h"

namespace lth {
namespace {

at::ScalarType scalar_type(Dtype dtype) { return dtype == Dtype::kFloat32 ? at::kFloat : at::kDouble; }

template <typename T>
void zero_masked(T* values, const std::vector<uint64_t>& words) {
  for (size_t word = 0; word < words.size(); ++word) {
    const uint64_t bits = words[word];
    if (bits == ~uint64_t{0}) continue;
    for (int x = 0; x < 64; ++x) {
      if (!(bits >> x & 1)) values[word * 64 + x] = T(0);
    }
  }
}

// How a weight is drawn: what standard numbers are multiplied with, which are Gaussian unless said otherwise. Glorot &
// Bengio 2010: a variance of 2 / (in + out), also uniform over (-sqrt(6 / (in + out)), sqrt(6 / (in + out))); He et al.
// 2015: 2 / in; TensorFlow's variance scaling: scale / in, of a Gaussian cut off at two deviations.
struct Distribution {
  double (*draw)(const Stream&, uint64_t index, uint32_t epoch, uint32_t layer);
  double factor;
};
Distribution distribution_of(const ParameterSpec& p) {
  const auto in = static_cast<double>(p.fan_in), out = static_cast<double>(p.fan_out), scale = p.initialisation_scale;
  switch (p.initialisation) {
    case Initialisation::kGlorotNormal: return {normal, std::sqrt(2.0 / (in + out))};
    case Initialisation::kKaimingNormal: return {normal, std::sqrt(2.0 / in)};
    case Initialisation::kGlorotUniform: return {uniform, std::sqrt(6.0 / (in + out))};
    case Initialisation::kVarianceScaling: return {truncated_normal, std::sqrt(scale / in) / kTruncatedDeviation};
    case Initialisation::kNormal: return {normal, scale};
    case Initialisation::kTruncatedNormal: return {truncated_normal, scale};
    case Initialisation::kZeros:
    case Initialisation::kOnes: break;
  }
  return {nullptr, 0};
}

template <typename T>
void draw_weights(const ParameterLayout& layout, const Stream& numbers, T* values) {
  for (size_t i = 0; i < layout.parameters.size(); ++i) {
    const ParameterSpec& p = layout.parameters[i];
    if (p.initialisation == Initialisation::kOnes) std::fill_n(values + p.offset, p.size, T(1));
    const auto [draw, factor] = distribution_of(p);
    if (!draw) continue;
    for (int64_t x = 0; x < p.size; ++x) {
      values[p.offset + x] = static_cast<T>(factor * draw(numbers, static_cast<uint64_t>(x), 0, static_cast<uint32_t>(i)));
    }
  }
}

// One copy; what comes from a GPU goes straight into pinned memory, which lives as long as the arena.
Arena copy_out(const at::Tensor& flat) {
  if (flat.is_cpu()) {
    Arena copy(flat.nbytes());
    std::memcpy(copy.data(), flat.const_data_ptr(), flat.nbytes());
    return copy;
  }
  const at::Tensor host = at::empty(flat.sizes(), flat.options().device(at::kCPU).pinned_memory(true));
  host.copy_(flat);
  return Arena(static_cast<std::byte*>(host.mutable_data_ptr()), host.nbytes(), [host] {});
}

void copy_in(at::Tensor& flat, const Arena& values, Dtype from) {
  const at::Tensor host = at::from_blob(const_cast<std::byte*>(values.data()), flat.sizes(),
                                        at::TensorOptions().dtype(scalar_type(from)));
  flat.copy_(host);
}

}  // namespace

ParameterStore::ParameterStore(std::shared_ptr<const CompiledNetwork> net, Dtype type, at::Device on, Kind of,
                               const std::vector<std::string>& state_names)
    : network(std::move(net)), dtype(type), device(on), kind(of) {
  weights = zeros(layout().arena);
  for (const std::string& name : state_names) optimiser.push_back({name, {}});
  set_masks(nullptr);
}

at::Tensor ParameterStore::zeros(int64_t elements) const {
  return at::zeros({elements}, at::TensorOptions().dtype(scalar_type(dtype)).device(device));
}

at::Tensor ParameterStore::packed(const at::Tensor& whole, const Packing& as) const {
  if (kind != kPacked) return whole;
  at::Tensor values = zeros(as.arena);
  if (dtype == Dtype::kFloat32) {
    pack(as, layout(), whole.const_data_ptr<float>(), values.data_ptr<float>());
  } else {
    pack(as, layout(), whole.const_data_ptr<double>(), values.data_ptr<double>());
  }
  return values;
}

at::Tensor ParameterStore::unpacked(const at::Tensor& values) const {
  if (kind != kPacked) return values;
  at::Tensor whole = zeros(layout().arena);
  if (dtype == Dtype::kFloat32) {
    unpack(packing, layout(), values.const_data_ptr<float>(), whole.data_ptr<float>());
  } else {
    unpack(packing, layout(), values.const_data_ptr<double>(), whole.data_ptr<double>());
  }
  return whole;
}

void ParameterStore::want_gradients(bool all) {
  if (all == all_gradients_ && gradients.defined()) return;
  gradients.reset();  // before the other, which may be as large
  all_gradients_ = all;
  gradients = zeros(all ? layout().arena : packing.arena);
}

at::Tensor ParameterStore::view(const at::Tensor& flat, int parameter) const {
  const ParameterSpec& p = layout().parameters[parameter];
  return flat.narrow(0, p.offset, p.size).view(p.shape);
}

void ParameterStore::initialise(uint64_t seed, uint32_t replicate, uint64_t draw) {
  const Stream numbers = stream(seed, replicate, Purpose::kInitialisation, draw);
  at::Tensor host = at::zeros({layout().arena}, at::TensorOptions().dtype(scalar_type(dtype)));
  if (dtype == Dtype::kFloat32) {
    draw_weights(layout(), numbers, host.data_ptr<float>());
  } else {
    draw_weights(layout(), numbers, host.data_ptr<double>());
  }
  weights.copy_(host);
  for (State& state : optimiser) state.values.zero_();
  step = 0;
  optimiser_updates = 0;
  pending = {};
  apply_masks();
  if (average.defined()) average.copy_(weights);
}

void ParameterStore::keep_average() {
  average = weights.clone();
  // A swap must not fail half done: what it needs on a device is there before.
  if (!weights.is_cpu()) spare_ = at::empty_like(weights);
}

int64_t ParameterStore::average_bytes() const {
  int64_t bytes = 0;
  for (const at::Tensor& one : {average, spare_}) bytes += one.defined() ? static_cast<int64_t>(one.nbytes()) : 0;
  return bytes;
}

void ParameterStore::swap_average() {
  if (!average.defined()) return;
  // Contents, not tensors: what is recorded on a device knows the weights by their address.
  if (weights.is_cpu()) {
    auto* const values = static_cast<std::byte*>(weights.mutable_data_ptr());
    std::swap_ranges(values, values + weights.nbytes(), static_cast<std::byte*>(average.mutable_data_ptr()));
  } else {
    spare_.copy_(weights);
    weights.copy_(average);
    average.copy_(spare_);
  }
  pack_weights();
}

void ParameterStore::set_decayed(Decayed which) {
  if (kind != kAten || which == Decayed::kAll) return;
  const at::Tensor bits = at::zeros({layout().arena}, at::TensorOptions().dtype(at::kBool));
  for (const ParameterSpec& spec : layout().parameters) {
    if (spec.trainable && ParameterLayout::decays(spec, which)) bits.narrow(0, spec.offset, spec.size).fill_(true);
  }
  decayed = bits.to(device);
}

void ParameterStore::set_masks(std::shared_ptr<const Masks> chosen) {
  if (!chosen) chosen = std::make_shared<const Masks>(all_ones(network->layout));
  if (!chosen->layout->same_places(layout())) {
    throw Error("wrong-shape", "[set_masks] the masks belong to another network");
  }
  // Everything that may fail comes before the first change.
  Packing next = kind == kPacked ? Packing::of(*chosen) : Packing::whole(*chosen);
  std::vector<at::Tensor> states;
  for (const State& state : optimiser) {
    states.push_back(packed(state.values.defined() ? unpacked(state.values) : zeros(layout().arena), next));
  }
  const int64_t room = all_gradients_ ? layout().arena : next.arena;
  // Where nothing is packed the arenas never move: recorded updates know them by their addresses.
  at::Tensor of_gradients = gradients.defined() && gradients.numel() == room ? gradients : zeros(room);
  at::Tensor of_left = zeros(next.left_arena);
  at::Tensor kept;
  if (kind == kAten) {
    const at::Tensor bits = at::zeros({layout().arena}, at::TensorOptions().dtype(at::kBool));
    bool* to = bits.data_ptr<bool>();
    for (int64_t i = 0; i < layout().arena; ++i) to[i] = chosen->words[i / 64] >> (i % 64) & 1;
    kept = bits.to(device);
  }
  packing = std::move(next);
  left = std::move(of_left);
  masks = std::move(chosen);
  for (size_t i = 0; i < states.size(); ++i) optimiser[i].values = std::move(states[i]);
  gradients = std::move(of_gradients);
  gradients.zero_();
  keep = std::move(kept);
  apply_masks();
}

void ParameterStore::apply_masks() {
  const auto apply = [&](at::Tensor& flat, const std::vector<uint64_t>& words) {
    if (kind == kAten) {
      flat.copy_(at::where(keep, flat, at::zeros_like(flat)));
    } else if (dtype == Dtype::kFloat32) {
      zero_masked(flat.data_ptr<float>(), words);
    } else {
      zero_masked(flat.data_ptr<double>(), words);
    }
  };
  apply(weights, masks->words);
  if (average.defined()) apply(average, masks->words);
  for (State& state : optimiser) apply(state.values, packing.words);
  pack_weights();
}

void ParameterStore::pack_weights() {
  if (packing.left_arena == 0) return;
  if (dtype == Dtype::kFloat32) {
    pack_left(packing, layout(), weights.const_data_ptr<float>(), left.data_ptr<float>());
  } else {
    pack_left(packing, layout(), weights.const_data_ptr<double>(), left.data_ptr<double>());
  }
}

void ParameterStore::load(const Snapshot& snapshot, bool restore_optimiser) {
  if (!snapshot.layout->same_places(layout())) throw Error("wrong-shape", "[load] the snapshot belongs to another network");
  // All checks come before the first write: a refused snapshot leaves the session as it was.
  std::vector<const Arena*> sources(optimiser.size(), nullptr);
  if (restore_optimiser) {
    for (size_t i = 0; i < optimiser.size(); ++i) {
      for (const Snapshot::State& have : snapshot.optimiser) {
        if (have.name == optimiser[i].name) sources[i] = &have.values;
      }
      if (!sources[i]) {
        throw Error("wrong-shape", "[load] the snapshot has no optimiser state \"" + optimiser[i].name +
                                       "\": load it with { optimiser: 'zero' }");
      }
    }
  }
  copy_in(weights, snapshot.parameters, snapshot.dtype);
  // One that was made without averages is where they begin.
  if (average.defined()) copy_in(average, snapshot.average.size() ? snapshot.average : snapshot.parameters, snapshot.dtype);
  for (size_t i = 0; i < optimiser.size(); ++i) {
    if (sources[i] && kind == kPacked) {
      at::Tensor whole = zeros(layout().arena);
      copy_in(whole, *sources[i], snapshot.dtype);
      optimiser[i].values = packed(whole, packing);
    } else if (sources[i]) {
      copy_in(optimiser[i].values, *sources[i], snapshot.dtype);
    } else {
      optimiser[i].values.zero_();
    }
  }
  step = snapshot.step;
  pending = snapshot.pending;
  optimiser_updates = restore_optimiser ? snapshot.optimiser_updates : 0;
  apply_masks();
}

std::shared_ptr<const Snapshot> ParameterStore::snapshot() const {
  auto copy = std::make_shared<Snapshot>();
  copy->layout = network->layout;
  copy->dtype = dtype;
  copy->step = step;
  copy->optimiser_updates = optimiser_updates;
  copy->pending = pending;
  copy->parameters = copy_out(weights);
  for (const State& state : optimiser) copy->optimiser.push_back({state.name, copy_out(unpacked(state.values))});
  if (average.defined()) copy->average = copy_out(average);
  return copy;
}

std::shared_ptr<const Snapshot> ParameterStore::copy_of(const at::Tensor& arena) const {
  auto copy = std::make_shared<Snapshot>();
  copy->layout = network->layout;
  copy->dtype = arena.scalar_type() == at::kDouble ? Dtype::kFloat64 : Dtype::kFloat32;
  copy->step = step;
  copy->parameters = copy_out(arena);
  return copy;
}

bool ParameterStore::finite() const { return at::isfinite(weights).all().item<bool>(); }

}  // namespace lth
