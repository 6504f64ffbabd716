// Batch norm (Ioffe & Szegedy 2015) of an operation, fused with the sum and the ReLU behind it, forward and backward:
// statistics are summed inside the slices and joined in the slices' order.
#pragma once
#include <cmath>
#include <functional>
#include <vector>

#include "exec/images/values.h"

namespace lth {

template <typename S>
class BatchNorm {
  using R = Real<S>;
  using Value = typename Values<S>::Value;

 public:
  // What a slice sums up per channel; one batch norm after another uses it.
  struct Sums {
    std::vector<double> shift, first, second;
  };

  BatchNorm(Values<S>& values, const Operation& op, std::vector<Sums>& sums)
      : v_(values), op_(op), sums_(sums), in_(v_.values[op.inputs[0]]), inverse_deviation_(in_.channels) {
    const int64_t constants = planes_of<S>(in_.channels) * kPack<S>;
    for (auto* one : {&mean_, &scale_, &shift_, &constant_, &slope_}) one->resize(constants);
    for (Sums& of_slice : sums_) {
      for (auto* one : {&of_slice.shift, &of_slice.first, &of_slice.second}) {
        if (static_cast<int64_t>(one->size()) < constants) one->resize(constants);
      }
    }
  }

  bool of_images() const { return in_.image; }

  void use_running_statistics() {
    const R *mean = v_.weights(op_.running_mean), *variance = v_.weights(op_.running_variance);
    set_constants([&](int64_t c) { return static_cast<double>(mean[c]); },
                  [&](int64_t c) { return static_cast<double>(variance[c]); });
  }

  // ---- Of images

  void moments(int64_t slice) {
    Sums& m = sums_[slice];
    const S* x = v_.image(op_.inputs[0], slice);
    over_planes([&](int64_t planes, int64_t at, int64_t c) {
      v_.images.moments(x + at, planes, in_.places, v_.examples(slice), m.shift.data() + c, m.first.data() + c, m.second.data() + c);
    });
  }

  // Chan, Golub & LeVeque 1983: means and sums of squares around them, part by part.
  void join_moments(const Statistics& statistics) {
    std::vector<double> mean(in_.channels), variance(in_.channels);
    for (int64_t c = 0; c < in_.channels; ++c) {
      double squares = 0, count = 0;
      for (int64_t s = 0; s < v_.slices; ++s) {
        const Sums& m = sums_[s];
        const double n = static_cast<double>(v_.examples(s) * in_.places);
        const double part_mean = m.shift[c] + m.first[c] / n, part_squares = m.second[c] - m.first[c] * m.first[c] / n;
        const double difference = part_mean - mean[c], all = count + n;
        mean[c] += difference * n / all;
        squares += part_squares + difference * difference * count * n / all;
        count = all;
      }
      variance[c] = std::max(squares / count, 0.0);
    }
    use_batch_statistics(mean, variance, static_cast<double>(v_.n * in_.places), statistics);
  }

  void normalise(int64_t slice) {
    const S *x = v_.image(op_.inputs[0], slice), *other = op_.inputs.size() > 1 ? v_.image(op_.inputs[1], slice) : nullptr;
    S* y = v_.image(op_.output, slice);
    over_planes([&](int64_t planes, int64_t at, int64_t c) {
      v_.images.normalise(x + at, other ? other + at : nullptr, planes, in_.places, mean_.data() + c, scale_.data() + c,
                          shift_.data() + c, op_.fused_relu, y + at);
    });
  }

  // g: the gradient behind ReLU, of d and, unless it is null, other; and its sums.
  void gate(int64_t slice, const S* d, const S* other, S* g) {
    Sums& m = sums_[slice];
    const S *x = v_.image(op_.inputs[0], slice), *y = op_.fused_relu ? v_.image(op_.output, slice) : nullptr;
    over_planes([&](int64_t planes, int64_t at, int64_t c) {
      v_.images.gate(d + at, other ? other + at : nullptr, y ? y + at : nullptr, x + at, planes, in_.places, mean_.data() + c,
                     g + at, m.first.data() + c, m.second.data() + c);
    });
  }

  void join_gate() {
    std::vector<double> sum(in_.channels), product(in_.channels);
    for (int64_t s = 0; s < v_.slices; ++s) {
      for (int64_t c = 0; c < in_.channels; ++c) {
        sum[c] += sums_[s].first[c];
        product[c] += sums_[s].second[c];
      }
    }
    finish_gradients(sum, product, static_cast<double>(v_.n * in_.places));
  }

  void normalise_backward(int64_t slice, const S* g, S* dx) {
    const S* x = v_.image(op_.inputs[0], slice);
    over_planes([&](int64_t planes, int64_t at, int64_t c) {
      v_.images.normalise_backward(g + at, x + at, planes, in_.places, v_.examples(slice), mean_.data() + c, scale_.data() + c,
                                   constant_.data() + c, slope_.data() + c, dx + at);
    });
  }

  // ---- Of vectors: one plain pass, for no network of the paper has it.

  void normalise_vectors(const Statistics& statistics) {
    const Value& in = v_.values[op_.inputs[0]];
    const R* x = as<R>(in.columns);
    std::vector<double> mean(in.features), variance(in.features);
    for (int64_t f = 0; f < in.features; ++f) {
      for (int64_t n = 0; n < v_.n; ++n) mean[f] += static_cast<double>(x[f * v_.all_lanes + n]);
      mean[f] /= static_cast<double>(v_.n);
      for (int64_t n = 0; n < v_.n; ++n) {
        const double d = static_cast<double>(x[f * v_.all_lanes + n]) - mean[f];
        variance[f] += d * d;
      }
      variance[f] /= static_cast<double>(v_.n);
    }
    use_batch_statistics(mean, variance, static_cast<double>(v_.n), statistics);
    for (int64_t s = 0; s < v_.slices; ++s) normalise_columns(s);
  }

  void normalise_columns(int64_t slice) {
    const R* x = as<R>(v_.values[op_.inputs[0]].columns);
    const R* other = op_.inputs.size() > 1 ? as<R>(v_.values[op_.inputs[1]].columns) : nullptr;
    R* y = as<R>(v_.values[op_.output].columns);
    for (int64_t f = 0; f < v_.values[op_.output].features; ++f) {
      for (int64_t i = f * v_.all_lanes + v_.first(slice); i < f * v_.all_lanes + v_.first(slice) + kLane; ++i) {
        R v = (x[i] - mean_[f]) * scale_[f] + shift_[f];
        if (other) v += other[i];
        y[i] = op_.fused_relu && v < R(0) ? R(0) : v;
      }
    }
  }

  void normalise_vectors_backward() {
    const Value &out = v_.values[op_.output], &in = v_.values[op_.inputs[0]];
    const R *x = as<R>(in.columns), *y = as<R>(out.columns);
    R* g = as<R>(out.gradient);
    std::vector<double> sum(out.features), product(out.features);
    for (int64_t f = 0; f < out.features; ++f) {
      for (int64_t i = f * v_.all_lanes; i < f * v_.all_lanes + v_.n; ++i) {
        if (op_.fused_relu && y[i] <= R(0)) g[i] = 0;
        sum[f] += static_cast<double>(g[i]);
        product[f] += static_cast<double>(g[i]) * static_cast<double>(x[i] - mean_[f]);
      }
    }
    finish_gradients(sum, product, static_cast<double>(v_.n));
    std::vector<R> dx(out.features * v_.all_lanes, R(0));  // 0 in the lanes behind N
    for (int64_t f = 0; f < out.features; ++f) {
      for (int64_t i = f * v_.all_lanes; i < f * v_.all_lanes + v_.n; ++i) {
        dx[i] = (g[i] - constant_[f] - (x[i] - mean_[f]) * slope_[f]) * scale_[f];
      }
    }
    for (int64_t s = 0; s < v_.slices; ++s) {
      if (op_.inputs.size() > 1) v_.give_columns(op_.inputs[1], s, g);
      v_.give_columns(op_.inputs[0], s, dx.data());
    }
  }

 private:
  // f(how many planes, where in an image the first one begins, its first channel)
  template <typename F>
  void over_planes(F&& f) {
    v_.in_parts(in_.planes, [&](int64_t from, int64_t to) { f(to - from, from * in_.places * kCell<S>, from * kPack<S>); });
  }

  void set_constants(const std::function<double(int64_t)>& mean,
                     const std::function<double(int64_t)>& variance) {
    const R *gamma = v_.weights(op_.weight), *beta = v_.weights(op_.bias);
    for (int64_t c = 0; c < in_.channels; ++c) {
      inverse_deviation_[c] = 1 / std::sqrt(variance(c) + op_.epsilon);
      mean_[c] = static_cast<R>(mean(c));
      scale_[c] = static_cast<R>(static_cast<double>(gamma[c]) * inverse_deviation_[c]);
      shift_[c] = beta[c];
    }
  }

  void use_batch_statistics(const std::vector<double>& mean, const std::vector<double>& variance,
                            double count, const Statistics& statistics) {
    set_constants([&](int64_t c) { return mean[c]; }, [&](int64_t c) { return variance[c]; });
    const double momentum = statistics.momentum(op_.momentum);
    if (momentum == 0) return;
    R* running_mean = v_.weights(op_.running_mean);
    R* running_variance = v_.weights(op_.running_variance);
    // The running variance is PyTorch's, the unbiased one.
    const double unbiased = count / std::max(count - 1, 1.0);
    const auto move = [&](R& to, double towards) {
      to = static_cast<R>(static_cast<double>(to) + momentum * (towards - static_cast<double>(to)));
    };
    for (size_t c = 0; c < mean.size(); ++c) {
      move(running_mean[c], mean[c]);
      move(running_variance[c], variance[c] * unbiased);
    }
  }

  void finish_gradients(const std::vector<double>& sum, const std::vector<double>& product,
                        double count) {
    R *dgamma = v_.gradients(op_.weight), *dbeta = v_.gradients(op_.bias);
    for (int64_t c = 0; c < in_.channels; ++c) {
      dgamma[c] = static_cast<R>(product[c] * inverse_deviation_[c]);
      dbeta[c] = static_cast<R>(sum[c]);
      constant_[c] = static_cast<R>(sum[c] / count);
      slope_[c] = static_cast<R>(product[c] / count * inverse_deviation_[c] * inverse_deviation_[c]);
    }
  }

  Values<S>& v_;
  const Operation& op_;
  std::vector<Sums>& sums_;  // per slice
  const Value& in_;
  // Per channel, 0 for the second of a last plane that has but one.
  std::vector<R> mean_, scale_, shift_, constant_, slope_;
  std::vector<double> inverse_deviation_;
};

}  // namespace lth
