// Channels of several values behind one another. Images for the most part lie so from the start (Values): their gradients
// are parts of the whole one's then. What does not is copied.
#pragma once
#include <cstring>

#include "exec/images/values.h"

namespace lth {

template <typename S>
class Concat {
  using R = Real<S>;

 public:
  explicit Concat(Values<S>& values) : v_(values) {}

  void forward(const Operation& op, int64_t slice) {
    const auto& whole = v_.values[op.output];
    over_parts(op, [&](int part, int64_t first) {
      const auto& in = v_.values[part];
      if (!whole.image) {
        v_.over_columns(in, slice, [&](int64_t at) {
          std::memcpy(as<R>(whole.columns) + first * v_.all_lanes + at, as<R>(in.columns) + at, kLane * sizeof(R));
        });
      } else if (!v_.lies_in(part, op.output, first)) {
        copy(v_.image(part, slice), 0, v_.image(op.output, slice), first, in.channels, in.places);
      }
    });
  }

  // Of an image's part, from its first channel on.
  void backward_of_image(int part, int64_t first, const S* dy, S* dx) {
    const auto& in = v_.values[part];
    // The second channel of a last plane that has but one.
    if (in.channels % kPack<S> != 0) std::memset(static_cast<void*>(dx), 0, static_cast<size_t>(in.elements) * sizeof(S));
    copy(dy, first, dx, 0, in.channels, in.places);
  }

  void backward_of_vectors(const Operation& op, int64_t slice) {
    const R* d = as<R>(v_.values[op.output].gradient);
    over_parts(op, [&](int part, int64_t first) { v_.give_columns(part, slice, d + first * v_.all_lanes); });
  }

  // f(value, its first channel in the whole)
  template <typename F>
  void over_parts(const Operation& op, F&& f) {
    int64_t first = 0;
    for (int part : op.inputs) {
      f(part, first);
      first += v_.values[part].channels;
    }
  }

 private:
  static void copy(const S* from, int64_t first_from, S* to, int64_t first_to, int64_t channels, int64_t places) {
    for (int64_t c = 0; c < channels; ++c) {
      const S* plane = from + place_of(first_from + c, places);
      S* out = to + place_of(first_to + c, places);
      for (int64_t i = 0; i < places * kCell<S>; i += kPack<S>) out[i] = plane[i];
    }
  }
  // Where a channel begins.
  static int64_t place_of(int64_t channel, int64_t places) { return channel / kPack<S> * places * kCell<S> + channel % kPack<S>; }

  Values<S>& v_;
};

}  // namespace lth
