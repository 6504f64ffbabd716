#include "core/snapshot_file.h"

#include <bit>
#include <charconv>
#include <cstring>
#include <set>

#include "core/bitmask.h"
#include "core/error.h"
#include "core/shape.h"

namespace lth {
namespace {

constexpr const char* kSnapshotFormat = "lth-train/snapshot/2";
constexpr const char* kMasksFormat = "lth-train/masks/1";

[[noreturn]] void corrupt(const SafetensorsFile& file, const std::string& what) {
  throw Error("corrupt-file", "[safetensors] " + file.path() + ": " + what);
}

void check_format(const SafetensorsFile& file, const char* format) {
  const auto found = file.metadata().find("format");
  if (found == file.metadata().end() || found->second != format) {
    corrupt(file, "is not " + std::string(format) + " but " +
                      (found == file.metadata().end() ? "another program's file" : found->second));
  }
}

uint64_t whole_number(const SafetensorsFile& file, const char* key) {
  const auto found = file.metadata().find(key);
  if (found == file.metadata().end()) corrupt(file, std::string("has no ") + key);
  const std::string& text = found->second;
  uint64_t n = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (error != std::errc() || end != text.data() + text.size()) {
    corrupt(file, std::string(key) + " is \"" + text + "\", expected a whole number");
  }
  return n;
}

int64_t count(const SafetensorsFile& file, const char* key) {
  const uint64_t n = whole_number(file, key);
  if (n > static_cast<uint64_t>(INT32_MAX) * 1024) corrupt(file, std::string(key) + " of " + std::to_string(n) + " cannot be");
  return static_cast<int64_t>(n);
}

const TensorIn& tensor_of(const SafetensorsFile& file, const std::string& name, const std::vector<int64_t>& shape,
                          const std::string& dtype) {
  const auto found = file.tensors().find(name);
  if (found == file.tensors().end()) corrupt(file, "has no tensor " + name);
  if (found->second.shape != shape || found->second.dtype != dtype) {
    throw Error("wrong-shape", "[safetensors] " + file.path() + ": " + name + " is " + found->second.dtype + " " +
                                   text_of(found->second.shape) + ", expected " + dtype + " " + text_of(shape));
  }
  return found->second;
}

constexpr const char* kAverage = "average.";

// The optimiser remembers nothing of running statistics, which averages are kept of too.
bool stored(const ParameterSpec& p, const std::string& prefix) {
  return p.trainable || prefix.empty() || prefix == kAverage;
}

void append(std::vector<TensorOut>& out, const Snapshot& s, const Arena& arena, const std::string& prefix) {
  const int64_t element = bytes_of(s.dtype);
  for (const ParameterSpec& p : s.layout->parameters) {
    if (!stored(p, prefix)) continue;
    out.push_back({prefix + p.name, s.dtype == Dtype::kFloat32 ? "F32" : "F64", p.shape,
                   {arena.data() + p.offset * element, static_cast<size_t>(p.size * element)}});
  }
}

Arena read_arena(const SafetensorsFile& file, const Snapshot& s, const std::string& prefix, std::set<std::string>& used) {
  const int64_t element = bytes_of(s.dtype);
  const std::string dtype = s.dtype == Dtype::kFloat32 ? "F32" : "F64";
  // All shapes first: the arena is allocated only for a file that really holds so much.
  for (const ParameterSpec& p : s.layout->parameters) {
    if (stored(p, prefix)) tensor_of(file, prefix + p.name, p.shape, dtype);
  }
  Arena arena(static_cast<size_t>(s.layout->arena * element));
  for (const ParameterSpec& p : s.layout->parameters) {
    if (!stored(p, prefix)) continue;
    file.read(tensor_of(file, prefix + p.name, p.shape, dtype),
              {arena.data() + p.offset * element, static_cast<size_t>(p.size * element)});
    used.insert(prefix + p.name);
  }
  return arena;
}

void check_all_used(const SafetensorsFile& file, const std::set<std::string>& used) {
  for (const auto& [name, tensor] : file.tensors()) {
    if (!used.count(name)) corrupt(file, "holds the unknown tensor " + name);
  }
}

}  // namespace

void write_snapshot(const Snapshot& s, const std::string& path, const Metadata& metadata, bool with_optimiser) {
  std::vector<TensorOut> tensors;
  append(tensors, s, s.parameters, "");
  if (with_optimiser) {
    for (const Snapshot::State& state : s.optimiser) append(tensors, s, state.values, state.name + ".");
  }
  if (s.average.size()) append(tensors, s, s.average, kAverage);
  Metadata all = metadata;
  all["format"] = kSnapshotFormat;
  all["step"] = std::to_string(s.step);
  all["optimiser_updates"] = std::to_string(s.optimiser_updates);
  // The bits of the sum, not a decimal of it: a resumed training must go on from the same number.
  all["pending_loss_bits"] = std::to_string(std::bit_cast<uint64_t>(s.pending.loss));
  all["pending_correct"] = std::to_string(s.pending.correct);
  all["pending_seen"] = std::to_string(s.pending.seen);
  all["pending_evaluation"] = s.pending.evaluation ? "1" : "0";
  write_safetensors(path, tensors, all);
}

std::shared_ptr<Snapshot> read_snapshot(std::shared_ptr<const ParameterLayout> layout, const std::string& path) {
  const SafetensorsFile file(path);
  check_format(file, kSnapshotFormat);
  auto s = std::make_shared<Snapshot>();
  s->layout = std::move(layout);
  s->step = count(file, "step");
  s->optimiser_updates = count(file, "optimiser_updates");
  s->pending.loss = std::bit_cast<double>(whole_number(file, "pending_loss_bits"));
  s->pending.correct = count(file, "pending_correct");
  s->pending.seen = count(file, "pending_seen");
  const uint64_t evaluation = whole_number(file, "pending_evaluation");
  if (evaluation > 1) corrupt(file, "pending_evaluation is " + std::to_string(evaluation) + ", expected 0 or 1");
  s->pending.evaluation = evaluation == 1;
  const std::string& first = s->layout->parameters.at(0).name;
  const auto found = file.tensors().find(first);
  if (found == file.tensors().end()) corrupt(file, "has no tensor " + first);
  s->dtype = found->second.dtype == "F64" ? Dtype::kFloat64 : Dtype::kFloat32;
  std::set<std::string> used;
  s->parameters = read_arena(file, *s, "", used);
  for (const char* state : {"square_avg", "momentum", "exp_avg", "exp_avg_sq"}) {
    if (file.tensors().count(std::string(state) + "." + first)) {
      s->optimiser.push_back({state, read_arena(file, *s, std::string(state) + ".", used)});
    }
  }
  if (file.tensors().count(kAverage + first)) s->average = read_arena(file, *s, kAverage, used);
  check_all_used(file, used);
  return s;
}

void write_masks(const Masks& masks, const std::string& path, const Metadata& metadata) {
  std::vector<std::vector<std::byte>> bytes;
  std::vector<TensorOut> tensors;
  for (const ParameterSpec& p : masks.layout->parameters) {
    if (!p.prunable) continue;
    std::vector<std::byte>& one = bytes.emplace_back(static_cast<size_t>(p.size));
    for (int64_t i = 0; i < p.size; ++i) one[i] = static_cast<std::byte>(bit_at(masks.words, p.offset + i));
    tensors.push_back({p.name, "BOOL", p.shape, {}});
  }
  for (size_t i = 0; i < tensors.size(); ++i) tensors[i].bytes = bytes[i];
  Metadata all = metadata;
  all["format"] = kMasksFormat;
  write_safetensors(path, tensors, all);
}

std::shared_ptr<Masks> read_masks(std::shared_ptr<const ParameterLayout> layout, const std::string& path) {
  const SafetensorsFile file(path);
  check_format(file, kMasksFormat);
  for (const ParameterSpec& p : layout->parameters) {
    if (p.prunable) tensor_of(file, p.name, p.shape, "BOOL");
  }
  auto masks = std::make_shared<Masks>();
  masks->words.assign(static_cast<size_t>(layout->arena / 64), 0);
  std::set<std::string> used;
  for (const ParameterSpec& p : layout->parameters) {
    if (!p.prunable) {
      fill_bits(masks->words, p.offset, p.size);
      masks->remaining.push_back(p.size);
      continue;
    }
    std::vector<std::byte> bytes(static_cast<size_t>(p.size));
    file.read(tensor_of(file, p.name, p.shape, "BOOL"), bytes);
    int64_t ones = 0;
    for (int64_t i = 0; i < p.size; ++i) {
      const int value = std::to_integer<int>(bytes[i]);
      if (value > 1) corrupt(file, p.name + " entry " + std::to_string(i) + " is " + std::to_string(value) + ", expected 0 or 1");
      if (value) set_bit(masks->words, p.offset + i);
      ones += value;
    }
    masks->remaining.push_back(ones);
    used.insert(p.name);
  }
  check_all_used(file, used);
  masks->layout = std::move(layout);
  return masks;
}

}  // namespace lth
