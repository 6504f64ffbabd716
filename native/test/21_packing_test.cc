// Packed arenas: of tensors of which few weights are left only those are kept, in their order; nothing is lost on the way
// there and back, and an optimiser step goes through every element once.
#include <vector>

#include "check.h"
#include "core/bitmask.h"
#include "core/packing.h"
#include "numbers.h"

using namespace lth;
using test::Numbers;

namespace {

struct Some {
  std::shared_ptr<ParameterLayout> layout = std::make_shared<ParameterLayout>();
  Masks masks;
};

// Tensors of all kinds: pruned to nothing, to one weight, to few, to many, not at all; not prunable; not trainable.
Some some(Numbers& numbers) {
  Some c;
  const auto tensors = 1 + numbers.below(12);
  for (int64_t i = 0; i < tensors; ++i) {
    ParameterSpec spec;
    spec.name = "p" + std::to_string(i);
    spec.shape = {1 + numbers.below(70), 1 + numbers.below(700)};
    spec.prunable = numbers.below(3) > 0;
    c.layout->add(spec);
  }
  // Running statistics come last.
  for (int64_t i = numbers.below(3); i > 0; --i) {
    ParameterSpec spec;
    spec.name = "running" + std::to_string(i);
    spec.shape = {1 + numbers.below(100)};
    spec.trainable = false;
    c.layout->add(spec);
  }
  c.masks.layout = c.layout;
  c.masks.words.resize(c.layout->arena / 64);
  for (const ParameterSpec& spec : c.layout->parameters) {
    fill_bits(c.masks.words, spec.offset, spec.size);
    int64_t left = spec.size;
    if (spec.prunable) {
      const int64_t kinds[] = {0, 1, spec.size / 100, spec.size / 4, spec.size / 2, spec.size};
      const int64_t wanted = kinds[numbers.below(6)];
      for (; left > wanted; --left) {
        int64_t at = spec.offset + numbers.below(spec.size);
        while (!bit_at(c.masks.words, at)) at = at + 1 < spec.offset + spec.size ? at + 1 : spec.offset;
        clear_bit(c.masks.words, at);
      }
    }
    c.masks.remaining.push_back(left);
  }
  return c;
}

template <typename T>
void check_case(const Some& c, const Packing& packing, bool whole) {
  const ParameterLayout& layout = *c.layout;
  CHECK(packing.parts.size() == layout.parameters.size());
  CHECK(static_cast<int64_t>(packing.words.size()) * 64 == packing.arena);
  // A value for each weight that is left, +0 elsewhere.
  std::vector<T> values(layout.arena);
  for (int64_t i = 0; i < layout.arena; ++i) values[i] = bit_at(c.masks.words, i) ? static_cast<T>(i + 1) : T(0);
  std::vector<T> packed(packing.arena, T(-1)), back(layout.arena, T(-1));
  pack(packing, layout, values.data(), packed.data());
  unpack(packing, layout, packed.data(), back.data());
  for (const ParameterSpec& spec : layout.parameters) {
    if (!spec.trainable && !whole) std::fill_n(values.begin() + spec.offset, spec.size, T(0));
  }
  CHECK(back == values);
  std::vector<T> left(packing.left_arena, T(-1));
  pack_left(packing, layout, values.data(), left.data());
  for (size_t i = 0; i < layout.parameters.size(); ++i) {
    const ParameterSpec& spec = layout.parameters[i];
    const Packing::Part& part = packing.parts[i];
    const uint64_t* mask = c.masks.words.data() + spec.offset / 64;
    CHECK(part.offset % 64 == 0);
    CHECK(part.packed == (!whole && spec.trainable && spec.prunable && c.masks.remaining[i] * 4 <= spec.size));
    if (!part.packed) continue;
    CHECK(part.size == c.masks.remaining[i]);
    CHECK(part.left % 64 == 0);
    int64_t before = 0;
    for (int64_t x = 0; x < spec.size; ++x) {
      CHECK(Packing::rank(part, mask, x) == before);
      if (!bit_at(c.masks.words, spec.offset + x)) continue;
      CHECK(part.places[before] == x);
      CHECK(packed[part.offset + before] == values[spec.offset + x]);
      CHECK(left[part.left + before] == values[spec.offset + x]);
      ++before;
    }
  }
  // Every weight that is left is met once, with its own bit; what is no element has none.
  std::vector<int> met(layout.arena);
  for (const Packing::Chunk& chunk : packing.chunks) {
    CHECK(chunk.first % 64 == 0 && chunk.count % 64 == 0 && chunk.count > 0 && chunk.first + chunk.count <= packing.arena);
    for (int64_t i = 0; i < chunk.count; ++i) {
      const bool kept = bit_at(packing.words, chunk.first + i);
      // What is no element is +0 where it lies.
      if (chunk.places) CHECK(left[chunk.left + i] == (i < chunk.places_count ? packed[chunk.first + i] : T(0)));
      if (chunk.places && i >= chunk.places_count) CHECK(!kept);
      if (!kept) continue;
      const int64_t at = chunk.weights + (chunk.places ? chunk.places[i] : i);
      CHECK(packed[chunk.first + i] == values[at]);
      ++met[at];
    }
  }
  for (int64_t i = 0; i < layout.arena; ++i) CHECK(met[i] == (i < layout.trainable && bit_at(c.masks.words, i)));
}

}  // namespace

TEST("every weight that is left is kept once, in its order, and comes back to its place, whatever is pruned") {
  Numbers numbers(21);
  for (int i = 0; i < 150; ++i) {
    const Some c = some(numbers);
    check_case<float>(c, Packing::of(c.masks), false);
    check_case<double>(c, Packing::whole(c.masks), true);
  }
}
