#include "core/state_dict.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <map>
#include <set>
#include <vector>

#include "core/error.h"
#include "core/safetensors.h"
#include "core/shape.h"

namespace lth {
namespace {

constexpr size_t kMostNames = 5;  // that an error tells

// As torch.nn.DataParallel and its kin name everything.
constexpr const char* kModule = "module.";
constexpr const char* kBatches = "num_batches_tracked";

float from_half(uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const float size = exponent == 31  ? (fraction ? std::nanf("") : INFINITY)
                     : exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                                     : std::ldexp(static_cast<float>(fraction + 1024), exponent - 25);
  return bits >> 15 ? -size : size;
}

float from_bf16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

bool ends_with(const std::string& name, const std::string& with) {
  return name.size() >= with.size() && name.compare(name.size() - with.size(), with.size(), with) == 0;
}

int64_t bytes_of(const std::string& dtype) {
  if (dtype == "F64") return 8;
  if (dtype == "F32") return 4;
  return dtype == "F16" || dtype == "BF16" ? 2 : 0;
}

// Converts as it reads, a piece at a time: a large tensor is not in memory twice.
template <typename T>
void read_as(const SafetensorsFile& file, const TensorIn& tensor, T* to, int64_t size) {
  constexpr int64_t kPiece = 1 << 16;
  const int64_t element = bytes_of(tensor.dtype);
  std::vector<std::byte> bytes(static_cast<size_t>(std::min(size, kPiece) * element));
  for (int64_t first = 0; first < size; first += kPiece) {
    const int64_t count = std::min(size - first, kPiece);
    TensorIn piece = tensor;
    piece.first += static_cast<uint64_t>(first * element);
    piece.bytes = static_cast<uint64_t>(count * element);
    file.read(piece, std::span(bytes).first(static_cast<size_t>(piece.bytes)));
    for (int64_t i = 0; i < count; ++i) {
      const std::byte* const from = bytes.data() + i * element;
      if (element == 8) {
        double value;
        std::memcpy(&value, from, sizeof value);
        to[first + i] = static_cast<T>(value);
      } else if (element == 4) {
        float value;
        std::memcpy(&value, from, sizeof value);
        to[first + i] = static_cast<T>(value);
      } else {
        uint16_t bits;
        std::memcpy(&bits, from, sizeof bits);
        to[first + i] = static_cast<T>(tensor.dtype == "F16" ? from_half(bits) : from_bf16(bits));
      }
    }
  }
}

// "a, b, c and 7 more"
std::string list_of(const std::vector<std::string>& names) {
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), kMostNames); ++i) text += (i ? ", " : "") + names[i];
  if (names.size() > kMostNames) text += " and " + std::to_string(names.size() - kMostNames) + " more";
  return text;
}

}  // namespace

std::shared_ptr<Snapshot> read_state_dict(std::shared_ptr<const ParameterLayout> layout, const std::string& path) {
  const SafetensorsFile file(path);
  const auto refuse = [&](const std::string& what) {
    throw Error("wrong-shape", "[state dict] " + path + ": " + what);
  };
  std::map<std::string, const TensorIn*> found;
  bool of_module = !file.tensors().empty();
  for (const auto& [name, tensor] : file.tensors()) of_module = of_module && name.rfind(kModule, 0) == 0;
  for (const auto& [name, tensor] : file.tensors()) {
    const std::string own = of_module ? name.substr(std::strlen(kModule)) : name;
    if (!ends_with(own, kBatches)) found[own] = &tensor;
  }

  auto s = std::make_shared<Snapshot>();
  s->layout = std::move(layout);
  s->dtype = Dtype::kFloat32;
  std::vector<std::string> missing, unknown;
  std::set<std::string> known;
  for (const ParameterSpec& p : s->layout->parameters) {
    known.insert(p.name);
    const auto at = found.find(p.name);
    if (at == found.end()) {
      missing.push_back(p.name);
      continue;
    }
    const TensorIn& tensor = *at->second;
    if (tensor.shape != p.shape) refuse(p.name + " is " + text_of(tensor.shape) + ", expected " + text_of(p.shape));
    if (bytes_of(tensor.dtype) == 0) refuse(p.name + " is " + tensor.dtype + ", expected F64, F32, F16 or BF16");
    if (tensor.dtype == "F64") s->dtype = Dtype::kFloat64;
  }
  for (const auto& [name, tensor] : found) {
    if (!known.count(name)) unknown.push_back(name);
  }
  if (!missing.empty()) refuse("has no " + list_of(missing));
  if (!unknown.empty()) refuse("holds what the network has not: " + list_of(unknown));

  s->parameters = Arena(static_cast<size_t>(s->layout->arena * bytes_of(s->dtype)));
  for (const ParameterSpec& p : s->layout->parameters) {
    const TensorIn& tensor = *found.at(p.name);
    if (s->dtype == Dtype::kFloat64) {
      read_as(file, tensor, reinterpret_cast<double*>(s->parameters.data()) + p.offset, p.size);
    } else {
      read_as(file, tensor, reinterpret_cast<float*>(s->parameters.data()) + p.offset, p.size);
    }
  }
  return s;
}

}  // namespace lth
