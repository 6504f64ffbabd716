// Memory for images as convolutions' products read them: turned for the gradient of the weights (LayerKernels::turn), a band
// of rows at a time for each thread, or whole slices that stay until the stage ends and all slices are there; transformed
// tiles of each thread.
#pragma once
#include <algorithm>
#include <vector>

#include "exec/images/values.h"

namespace lth {

template <typename S>
class TurnedImages {
  using R = Real<S>;

 public:
  explicit TurnedImages(Values<S>& values) : v_(values) {}

  // ---- Planning: elements of S, or of R for sums

  void want_band(int64_t x, int64_t dy) { band_.want(x, dy); }
  void want_tiles(int64_t size) { tiles_size_ = std::max(tiles_size_, size); }
  void want_sums(int64_t size) { sums_size_ = std::max(sums_size_, size); }
  // The number of a pair of images that the stage at hand keeps.
  int keep(int64_t x, int64_t dy) {
    if (kept_in_stage_ == static_cast<int>(kept_.size())) kept_.emplace_back();
    kept_[kept_in_stage_].want(x, dy);
    return kept_in_stage_++;
  }
  void end_stage() { kept_in_stage_ = 0; }

  void make() {
    band_.make(v_.pool.threads());
    for (Both& one : kept_) one.make(v_.training_slices);
    tiles_ = Arena(static_cast<size_t>(v_.pool.threads() * tiles_size_) * sizeof(S));
    sums_ = Arena(static_cast<size_t>(sums_size_) * sizeof(R));
  }

  // ---- Running

  // Places [first, last) of an image of so many places as LayerKernels::turn makes them: so many channels, whole planes, at a
  // time, until there are no more.
  void turn(const S* image, int64_t planes, int64_t places, int64_t first, int64_t last, int64_t channels, S* to) const {
    const int64_t at_once = planes_of<S>(channels), all = last - first;
    v_.in_parts(tasks_for(planes, at_once) * all, [&](int64_t from, int64_t end) {
      while (from < end) {
        const int64_t plane = from / all * at_once, place = from % all, count = std::min(all - place, end - from);
        v_.images.turn(image + plane * places * kCell<S>, std::min(at_once, planes - plane), places, first + place, count, channels,
                       to + from * kLane * channels);
        from += count;
      }
    });
  }

  S* band_x() { return as<S>(band_.x) + Pool::thread() * band_.size_x; }
  S* band_dy() { return as<S>(band_.dy) + Pool::thread() * band_.size_dy; }
  S* tiles() { return as<S>(tiles_) + Pool::thread() * tiles_size_; }
  S* x(int kept, int64_t slice) { return as<S>(kept_[kept].x) + slice * kept_[kept].size_x; }
  S* dy(int kept, int64_t slice) { return as<S>(kept_[kept].dy) + slice * kept_[kept].size_dy; }
  R* sums() { return as<R>(sums_); }  // for one convolution at a time

 private:
  struct Both {
    int64_t size_x = 0, size_dy = 0;
    Arena x, dy;  // whose lines are whole vectors

    void want(int64_t of_x, int64_t of_dy) {
      size_x = std::max(size_x, of_x);
      size_dy = std::max(size_dy, of_dy);
    }
    void make(int64_t number) {
      x = Arena(static_cast<size_t>(number * size_x) * sizeof(S));
      dy = Arena(static_cast<size_t>(number * size_dy) * sizeof(S));
    }
  };

  Values<S>& v_;
  Both band_;               // per thread
  std::vector<Both> kept_;  // per slice
  int kept_in_stage_ = 0;
  int64_t tiles_size_ = 0, sums_size_ = 0;
  Arena tiles_, sums_;
};

}  // namespace lth
