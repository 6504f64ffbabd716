// What the kernels of sparse.h go through: which weights are left, which places they read, and in which runs the output is
// made. Built once for a mask; only the entries' values follow the weights.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "core/bitmask.h"
#include "core/packing.h"
#include "kernels/sparse.h"

namespace lth {

// One axis of a convolution or of its gradient to the input: the taps in an order in which those that a place sees inside
// lie behind one another, and the places that see the same ones.
class SparseAxis {
 public:
  // Output place o reads o * stride - padding + tap of the input.
  static SparseAxis forward(int64_t size, int64_t out_size, int64_t kernel, int64_t stride, int64_t padding);
  // The same the other way round: the places of dX, and what they get from dY.
  static SparseAxis backward(int64_t size, int64_t out_size, int64_t kernel, int64_t stride, int64_t padding);

  struct Group {
    int64_t first, step, count;  // output places
    int64_t in, in_step;         // what the taps' offsets count from
    int64_t from, to;            // ranks
  };

  std::vector<Group> groups;
  std::vector<int64_t> taps;     // by rank
  std::vector<int64_t> offsets;  // by rank: places from where a group's `in` is

 private:
  // f(place) = {in, the first of its ranks, the last + 1}
  template <typename F>
  void group(int64_t places, int64_t step, int64_t in_step, F&& f);
};

std::vector<PlaceRun> place_runs(const SparseAxis& rows, const SparseAxis& columns, int64_t in_width, int64_t out_width);

// Of the weights (K,C,h,w) at `first` in a mask, those that are left.
struct SparseShape {
  int64_t units, channels;             // out and in, of this direction
  int64_t unit_step, channel_step;     // between weights; taps are neighbours
  int64_t kernel_w, kernel_h;
  int64_t in_plane, in_width;
};

template <typename S>
class SparseEntries {
 public:
  SparseEntries() = default;
  // The weights lie in the places of the shape, or, where they are packed, behind one another.
  SparseEntries(const SparseShape& shape, const SparseAxis& rows, const SparseAxis& columns, std::span<const uint64_t> mask,
                int64_t first, const Packing::Part* packed = nullptr);

  // How many there would be.
  static int64_t count(const SparseShape& shape, int64_t taps, std::span<const uint64_t> mask, int64_t first);

  const Entry<S>* entries() const { return entries_.data(); }
  const int32_t* starts() const { return starts_.data(); }
  int64_t size() const { return static_cast<int64_t>(entries_.size()); }
  bool made() const { return !starts_.empty(); }

  // Where kernels have one tap: the planes that are read lie so many places apart from now on.
  void set_plane(int64_t places);

  // The values of entries [first, last) from the weights as S.
  void refresh(const S* weights, int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      for (int64_t c = 0; c < kPack<S>; ++c) {
        const int32_t from = from_[i * kPack<S> + c];
        entries_[i].weight[c] = from >= 0 ? weights[from] : S{};
      }
    }
  }

 private:
  std::vector<Entry<S>> entries_;
  std::vector<int32_t> from_;  // kPack per entry: index of its weight, -1 where there is none
  std::vector<int32_t> starts_;
  int64_t plane_ = 0;  // places
};

}  // namespace lth
