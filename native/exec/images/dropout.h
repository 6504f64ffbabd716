// Dropout of an operation: elements that stay are multiplied so that their mean is what it was; without noise all stay as
// they are.
#pragma once
#include <algorithm>
#include <cstring>
#include <vector>

#include "exec/images/values.h"

namespace lth {

template <typename S>
class Dropout {
  using R = Real<S>;

 public:
  Dropout(Values<S>& values, const Operation& op)
      : v_(values),
        op_(op),
        out_(v_.values[op.output]),
        scale_(static_cast<R>(1 / (1 - op.probability))),
        of_slice_(out_.image ? out_.elements : out_.features * kLane),
        keep_(static_cast<size_t>(v_.training_slices * of_slice_)) {}

  void forward(int64_t slice, const Batch& batch) {
    if (!batch.dropout) return copy(slice);
    draw(slice, batch);
    if (out_.image) {
      v_.images.drop(v_.image(op_.inputs[0], slice), keep(slice), scale_, v_.image(op_.output, slice), out_.elements);
    } else {
      drop_columns(slice, as<R>(v_.values[op_.inputs[0]].columns), as<R>(out_.columns));
    }
  }

  void copy(int64_t slice) {
    if (out_.image) {
      std::memcpy(static_cast<void*>(v_.image(op_.output, slice)), v_.image(op_.inputs[0], slice),
                  static_cast<size_t>(out_.elements) * sizeof(S));
      return;
    }
    const auto& in = v_.values[op_.inputs[0]];
    v_.over_columns(out_, slice, [&](int64_t at) { std::memcpy(as<R>(out_.columns) + at, as<R>(in.columns) + at, kLane * sizeof(R)); });
  }

  // dx may be dy.
  void backward_of_image(int64_t slice, const Batch& batch, const S* dy, S* dx) {
    if (batch.dropout) {
      v_.images.drop(dy, keep(slice), scale_, dx, out_.elements);
    } else if (dx != dy) {
      std::memcpy(static_cast<void*>(dx), dy, static_cast<size_t>(out_.elements) * sizeof(S));
    }
  }

  void backward_of_vectors(int64_t slice, const Batch& batch) {
    R* d = as<R>(out_.gradient);
    if (batch.dropout) drop_columns(slice, d, d);
    v_.give_columns(op_.inputs[0], slice, d);
  }

 private:
  uint8_t* keep(int64_t slice) { return keep_.data() + slice * of_slice_; }

  // As the slice's elements lie; nothing is kept in lanes that no example fills.
  void draw(int64_t slice, const Batch& batch) {
    uint8_t* to = keep(slice);
    std::fill_n(to, of_slice_, uint8_t{0});
    const int64_t places = out_.image ? out_.places : 1;
    for (int64_t e = 0; e < v_.examples(slice); ++e) {
      const auto lane = [&](int64_t element) {
        if (!out_.image) return element * kLane + e;
        const int64_t c = element / places;
        return (c / kPack<S> * places + element % places) * kCell<S> + e * kPack<S> + c % kPack<S>;
      };
      draw_dropout(*batch.dropout, op_.dropout, batch.examples[static_cast<size_t>(v_.first(slice) + e)], out_.features,
                   op_.probability, [&](int64_t element, bool stays) { to[lane(element)] = stays; });
    }
  }

  void drop_columns(int64_t slice, const R* from, R* to) {
    const uint8_t* keep = this->keep(slice);
    v_.over_columns(out_, slice, [&](int64_t at) {
      for (int64_t l = 0; l < kLane; ++l) to[at + l] = from[at + l] * (keep[l] ? scale_ : R(0));
      keep += kLane;
    });
  }

  Values<S>& v_;
  const Operation& op_;
  const typename Values<S>::Value& out_;
  const R scale_;
  const int64_t of_slice_;
  std::vector<uint8_t> keep_;  // per slice
};

}  // namespace lth
