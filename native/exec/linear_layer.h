// A linear layer of the CPU's executors over columns (features, L) with the batch innermost: its three products, each dense
// or of the weights that are left alone (sparse_linear.h). Rows are cut into tasks by shape alone, and tasks write disjoint
// outputs, so that no bit depends on the number of threads.
#pragma once
#include <algorithm>
#include <cstdint>

#include "core/pool.h"
#include "exec/linear_products.h"
#include "exec/sparse_linear.h"

namespace lth {

// Rows per task: a multiple of the kernels' row tiles (6 and 4) and of the transpose block (8).
constexpr int64_t kRowsPerTask = 24;

// f(first, last) for all rows, in tasks.
template <typename F>
void over_rows(Pool& pool, int64_t rows, F&& f) {
  pool.parallel(tasks_for(rows, kRowsPerTask),
                [&](int64_t task) { f(task * kRowsPerTask, std::min(rows, (task + 1) * kRowsPerTask)); });
}

template <typename T>
class LinearLayer {
 public:
  LinearLayer(ParameterStore& store, Pool& pool, const Kernels<T>& kernels, const SparseKernels<T>& sparse,
              const LinearCosts& costs, const Operation& op, bool wants_dx)
      : store_(store), pool_(pool), kernels_(kernels), sparse_(store, sparse, costs, op, wants_dx), op_(op), wants_dx_(wants_dx) {
    const std::vector<int64_t>& shape = store.layout().parameters[op.weight].shape;
    units_ = shape[0];
    features_ = shape[1];
  }

  // The store's masks are others, or the gradients that are wanted: those of the weights that are left, or all.
  void set_mask(Products products, bool left_alone) { sparse_.set_mask(products, left_alone); }

  // Chooses the products for a batch of so many examples.
  void begin(int64_t examples) {
    n_ = examples;
    lanes_ = padded(examples);
    sparse_.use(lanes_);
  }

  KernelChoice kernels() const { return sparse_.kernels(); }
  // Does `backward` read x as rows too?
  bool reads_rows() const { return !sparse_.gradient(); }

  // y(K, L) = w(K, C) x(C, L) + bias, ReLU if fused; then(k0, k1) follows in the task that made these rows.
  template <typename F>
  void forward(const T* x, T* y, F&& then) {
    const T* bias = op_.bias >= 0 ? parameter(op_.bias) : nullptr;
    const Product<T> dense = linear_forward<T>(parameter(op_.weight), bias, features_, x, y, lanes_, op_.fused_relu);
    over_rows(pool_, units_, [&](int64_t k0, int64_t k1) {
      if (sparse_.forward()) {
        sparse_.forward(x, bias, y, k0, k1);
        if (op_.fused_relu) kernels_.relu(y + k0 * lanes_, y + k0 * lanes_, (k1 - k0) * lanes_);
      } else {
        kernels_.product(dense, k0, k1, 0, lanes_);
      }
      then(k0, k1);
    });
  }

  // dw(K, C) = dy(K, N) x(N, C), dbias(K) = row sums of dy, to the store; dx(C, L) = w^T dy if it is wanted, or, where
  // `accumulate`, added to it. x as columns, and as rows if they are read. One parallel region: they only read dy.
  void backward(const T* dy, const T* x, const T* rows, int64_t row_stride, T* dx, bool accumulate) {
    const Product<T> dw = linear_weight_gradient<T>(dy, lanes_, n_, rows, row_stride, features_, store_.gradients_of<T>(op_.weight));
    const Product<T> dense_dx = linear_input_gradient<T>(parameter(op_.weight), features_, units_, dy, dx, lanes_, accumulate);
    const int64_t weight_tasks = tasks_for(units_, kRowsPerTask);
    const int64_t input_tasks = wants_dx_ ? tasks_for(features_, kRowsPerTask) : 0;
    pool_.parallel(weight_tasks + input_tasks, [&](int64_t task) {
      if (task < weight_tasks) {
        const int64_t k0 = task * kRowsPerTask, k1 = std::min(units_, k0 + kRowsPerTask);
        if (sparse_.gradient()) {
          sparse_.weight_gradient(dy, x, k0, k1);
        } else {
          weight_gradient_rows(kernels_, dw, k0, k1, store_, op_.weight);
        }
        if (op_.bias >= 0) {
          kernels_.row_sum(dy + k0 * lanes_, lanes_, store_.gradients_of<T>(op_.bias) + k0, k1 - k0, lanes_);
        }
      } else {
        const int64_t c0 = (task - weight_tasks) * kRowsPerTask, c1 = std::min(features_, c0 + kRowsPerTask);
        // The sparse product does not add.
        if (!sparse_.backward() || accumulate) {
          kernels_.product(dense_dx, c0, c1, 0, lanes_);
        } else {
          sparse_.input_gradient(dy, dx, c0, c1);
        }
      }
    });
  }

 private:
  const T* parameter(int index) const {
    return store_.weights.const_data_ptr<T>() + store_.layout().parameters[index].offset;
  }

  ParameterStore& store_;
  Pool& pool_;
  const Kernels<T>& kernels_;
  SparseLinear<T> sparse_;
  const Operation& op_;
  const bool wants_dx_;
  int64_t units_ = 0, features_ = 0;
  int64_t n_ = 0, lanes_ = 0;  // of the batch at hand
};

}  // namespace lth
