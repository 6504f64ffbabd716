#include "core/packing.h"

#include <algorithm>
#include <cstring>

#include "core/bitmask.h"

namespace lth {
namespace {

constexpr int64_t kWord = 64;
constexpr int64_t kFew = 4;              // at most one weight in so many: more would cost more than whole tensors
constexpr int64_t kChunk = 16384;        // 64 KiB of each arena in fp32
constexpr int64_t kPackedChunk = 4096;  // its weights are collected first: they stay in the first cache

bool alike(const ParameterSpec& a, const ParameterSpec& b) { return a.weight == b.weight && a.norm == b.norm; }
int64_t whole_words(int64_t n) { return (n + kWord - 1) / kWord * kWord; }

// The elements of a packed tensor, behind one another.
template <typename T>
void collect(const Packing::Part& part, const T* tensor, T* to) {
  for (size_t x = 0; x < part.places.size(); ++x) to[x] = tensor[part.places[x]];
}

}  // namespace

Packing Packing::whole(const Masks& masks) {
  Packing p;
  for (const ParameterSpec& spec : masks.layout->parameters) {
    p.parts.push_back({.offset = spec.offset, .size = spec.size, .packed = false, .left = 0, .places = {}, .before = {}});
  }
  p.arena = masks.layout->arena;
  p.words = masks.words;
  p.plan_chunks(*masks.layout);
  return p;
}

Packing Packing::of(const Masks& masks) {
  Packing p;
  const auto& parameters = masks.layout->parameters;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const ParameterSpec& spec = parameters[i];
    Part part;
    part.offset = p.arena;
    if (spec.trainable) {
      part.packed = spec.prunable && masks.remaining[i] * kFew <= spec.size && spec.size <= INT32_MAX;
      part.size = part.packed ? masks.remaining[i] : spec.size;
    }
    if (part.packed) {
      part.left = p.left_arena;
      p.left_arena += whole_words(part.size);
      part.places.reserve(static_cast<size_t>(part.size));
      for (int64_t bit = 0; bit < spec.size; bit += kWord) {
        part.before.push_back(static_cast<int32_t>(part.places.size()));
        for_each_bit(masks.words, spec.offset + bit, std::min(kWord, spec.size - bit),
                     [&](int64_t at) { part.places.push_back(static_cast<int32_t>(at - spec.offset)); });
      }
    }
    p.arena += whole_words(part.size);
    p.words.resize(static_cast<size_t>(p.arena / kWord));
    if (part.packed) {
      fill_bits(p.words, part.offset, part.size);
    } else {
      const auto from = masks.words.begin() + spec.offset / kWord;
      std::copy(from, from + whole_words(part.size) / kWord, p.words.begin() + part.offset / kWord);
    }
    p.parts.push_back(std::move(part));
  }
  p.plan_chunks(*masks.layout);
  return p;
}

void Packing::plan_chunks(const ParameterLayout& layout) {
  for (size_t i = 0; i < parts.size(); ++i) {
    const Part& part = parts[i];
    const ParameterSpec& spec = layout.parameters[i];
    if (!spec.trainable) continue;
    if (part.packed) {
      for (int64_t at = 0; at < part.size; at += kPackedChunk) {
        const int64_t count = std::min(kPackedChunk, part.size - at);
        chunks.push_back({part.offset + at, whole_words(count), spec.offset, static_cast<int32_t>(i), part.left + at, part.places.data() + at, count});
      }
      continue;
    }
    for (int64_t at = 0, all = whole_words(part.size); at < all;) {
      // Small tensors that are neighbours in both and of one kind go together.
      Chunk* last = chunks.empty() ? nullptr : &chunks.back();
      const bool joins = last && !last->places && last->count < kChunk && alike(layout.parameters[static_cast<size_t>(last->parameter)], spec) && last->first + last->count == part.offset + at &&
                         last->weights + last->count == spec.offset + at;
      if (!joins) last = &chunks.emplace_back(Chunk{part.offset + at, 0, spec.offset + at, static_cast<int32_t>(i), 0, nullptr, 0});
      const int64_t count = std::min(all - at, kChunk - last->count);
      last->count += count;
      at += count;
    }
  }
}

template <typename T>
void pack(const Packing& packing, const ParameterLayout& layout, const T* from, T* to) {
  std::fill_n(to, packing.arena, T(0));
  for (size_t i = 0; i < packing.parts.size(); ++i) {
    const Packing::Part& part = packing.parts[i];
    const T* tensor = from + layout.parameters[i].offset;
    if (part.packed) {
      collect(part, tensor, to + part.offset);
    } else {
      std::copy_n(tensor, part.size, to + part.offset);
    }
  }
}

template <typename T>
void pack_left(const Packing& packing, const ParameterLayout& layout, const T* from, T* to) {
  std::fill_n(to, packing.left_arena, T(0));
  for (size_t i = 0; i < packing.parts.size(); ++i) {
    const Packing::Part& part = packing.parts[i];
    const T* tensor = from + layout.parameters[i].offset;
    collect(part, tensor, to + part.left);
  }
}

template <typename T>
void unpack(const Packing& packing, const ParameterLayout& layout, const T* from, T* to) {
  std::fill_n(to, layout.arena, T(0));
  for (size_t i = 0; i < packing.parts.size(); ++i) {
    const Packing::Part& part = packing.parts[i];
    T* tensor = to + layout.parameters[i].offset;
    if (part.packed) {
      for (size_t x = 0; x < part.places.size(); ++x) tensor[part.places[x]] = from[part.offset + static_cast<int64_t>(x)];
    } else {
      std::copy_n(from + part.offset, part.size, tensor);
    }
  }
}

template void pack(const Packing&, const ParameterLayout&, const float*, float*);
template void pack(const Packing&, const ParameterLayout&, const double*, double*);
template void pack_left(const Packing&, const ParameterLayout&, const float*, float*);
template void pack_left(const Packing&, const ParameterLayout&, const double*, double*);
template void unpack(const Packing&, const ParameterLayout&, const float*, float*);
template void unpack(const Packing&, const ParameterLayout&, const double*, double*);

}  // namespace lth
