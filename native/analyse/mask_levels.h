// Nested masks of one IMP in one array: of each prunable weight, the level at which it was pruned. What a file of masks
// keeps (bench/masks).
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/snapshot.h"

namespace lth {

// `masks` are those of levels 1, 2, ... A byte per prunable weight, tensor after tensor in the layout's order without gaps:
// 0 where all masks keep it. Error("invalid-argument") where there are none, more than 255, or they are not nested.
std::vector<uint8_t> levels_of(std::span<const std::shared_ptr<const Masks>> masks);

// The masks of a level (0: all ones). Error("wrong-shape") where there are not as many bytes as prunable weights.
std::shared_ptr<const Masks> masks_at(std::shared_ptr<const ParameterLayout> layout, std::span<const uint8_t> levels,
                                      int level);

}  // namespace lth
