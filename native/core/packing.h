// Where what belongs to a weight (its gradient, its optimiser state) lies in an arena: in the layout's own places, or, of
// tensors of which few weights are left, only those, in their order.
#pragma once
#include <bit>
#include <cstdint>
#include <vector>

#include "core/snapshot.h"

namespace lth {

struct Packing {
  struct Part {
    int64_t offset = 0;  // of the first element, a multiple of 64
    int64_t size = 0;    // elements
    bool packed = false;
    int64_t left = 0;    // packed: of the first element in an arena of packed tensors alone, a multiple of 64
    // Packed: of each element, its index in the tensor; and how many elements lie before each word of the tensor's mask.
    std::vector<int32_t> places, before;
  };
  // Elements that an optimiser step goes through at once.
  struct Chunk {
    int64_t first;          // in the arena
    int64_t count;          // whole words of the mask
    int64_t weights;        // in the layout: of the first element, or of the tensor where there are places
    int32_t parameter;      // one of those whose elements these are: the others are as much weights, norms or biases
    int64_t left;           // of the first element in an arena of packed tensors alone, where there are places
    const int32_t* places;  // null: neighbours in the layout too
    int64_t places_count;   // of `count`, those that are elements
  };

  std::vector<Part> parts;      // by parameter
  std::vector<Chunk> chunks;    // of trainable parameters
  std::vector<uint64_t> words;  // of the arena: which elements are weights that are left
  int64_t arena = 0;
  int64_t left_arena = 0;  // of packed tensors alone

  // Everything in the layout's places.
  static Packing whole(const Masks& masks);
  // Of trainable parameters alone, as said above. Parameters of which nothing is kept elsewhere have no elements.
  static Packing of(const Masks& masks);

  // Elements before index i of a packed tensor whose mask begins at `mask`.
  static int64_t rank(const Part& part, const uint64_t* mask, int64_t i) {
    const uint64_t below = mask[i / 64] & ((uint64_t{1} << (i % 64)) - 1);
    return part.before[static_cast<size_t>(i / 64)] + std::popcount(below);
  }

 private:
  void plan_chunks(const ParameterLayout& layout);
};

// Between an arena of the layout and one of a packing; gaps and what is pruned are +0.
template <typename T>
void pack(const Packing& packing, const ParameterLayout& layout, const T* from, T* to);
// The elements of packed tensors alone, from an arena of the layout.
template <typename T>
void pack_left(const Packing& packing, const ParameterLayout& layout, const T* from, T* to);
template <typename T>
void unpack(const Packing& packing, const ParameterLayout& layout, const T* from, T* to);

}  // namespace lth
