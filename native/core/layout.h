// Where each parameter lives in the flat arenas (weights, gradients, momentum, mask bits share one layout).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace lth {

enum class Initialisation { kZeros, kOnes, kGlorotNormal, kKaimingNormal, kGlorotUniform, kVarianceScaling, kNormal, kTruncatedNormal };

// One parameter tensor. Offsets are multiples of kAlign elements, so that a tensor starts on a 64-bit word of
// the mask arena and on its own cache line of the weight arena.
struct ParameterSpec {
  std::string name;  // as in PyTorch: "fc1.weight"
  std::vector<int64_t> shape;
  int64_t size = 0;
  int64_t offset = 0;
  bool prunable = false;
  bool weight = false;  // counted in overall density
  bool norm = false;    // scale or shift of a normalisation
  // False for running statistics of normalisation: they are restored with everything else, but have no gradient, no
  // optimiser state and no share in distances.
  bool trainable = true;
  Initialisation initialisation = Initialisation::kZeros;
  double initialisation_scale = 1;  // kVarianceScaling: of the variance; kNormal, kTruncatedNormal: the deviation
  int64_t fan_in = 0;
  int64_t fan_out = 0;
};

// What weight decay is for: all parameters, all but those of normalisation, or weights of convolutions and linear layers
// alone, without biases.
enum class Decayed { kAll, kWithoutNorms, kWeights };

struct ParameterLayout {
  static constexpr int64_t kAlign = 64;
  std::vector<ParameterSpec> parameters;
  int64_t arena = 0;  // elements of a flat arena, gaps included (gaps are always +0 and masked out)
  // Of them, those of trainable parameters, which come first: what an optimiser step passes over.
  int64_t trainable = 0;

  // Of a trainable parameter: is it among those that weight decay is for?
  static bool decays(const ParameterSpec& spec, Decayed decayed) {
    return decayed == Decayed::kAll || spec.weight || (decayed == Decayed::kWithoutNorms && !spec.norm);
  }

  // Appends a parameter behind the last one and returns its index.
  int add(ParameterSpec spec) {
    spec.size = 1;
    for (int64_t d : spec.shape) spec.size *= d;
    spec.offset = arena;
    arena += (spec.size + kAlign - 1) / kAlign * kAlign;
    if (spec.trainable) trainable = arena;
    parameters.push_back(std::move(spec));
    return static_cast<int>(parameters.size()) - 1;
  }

  // Do arenas and masks of the other mean the same? (The same network compiled twice has two layouts.)
  bool same_places(const ParameterLayout& other) const {
    if (this == &other) return true;
    if (arena != other.arena || parameters.size() != other.parameters.size()) return false;
    for (size_t i = 0; i < parameters.size(); ++i) {
      const ParameterSpec &a = parameters[i], &b = other.parameters[i];
      if (a.name != b.name || a.shape != b.shape || a.offset != b.offset || a.prunable != b.prunable) return false;
    }
    return true;
  }
};

}  // namespace lth
