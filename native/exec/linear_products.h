// The three products of a linear layer with the batch innermost: x (C, L), y (K, L), w (K, C); L lanes, N examples.
#pragma once
#include <vector>

#include "exec/store.h"
#include "kernels/kernels.h"

namespace lth {

// y = w x + bias (or null) [, ReLU]
template <typename T>
Product<T> linear_forward(const T* w, const T* bias, int64_t c, const T* x, T* y, int64_t lanes, bool relu) {
  return {.a = w,
          .a_row = c,
          .a_step = 1,
          .b = x,
          .b_row = lanes,
          .inner = c,
          .out = y,
          .out_row = lanes,
          .bias = bias,
          .relu = relu,
          .accumulate = false};
}

// dx (C, L) = w^T dy, or added to it
template <typename T>
Product<T> linear_input_gradient(const T* w, int64_t c, int64_t k, const T* dy, T* dx, int64_t lanes, bool accumulate) {
  return {.a = w,
          .a_row = 1,
          .a_step = c,
          .b = dy,
          .b_row = lanes,
          .inner = k,
          .out = dx,
          .out_row = lanes,
          .bias = nullptr,
          .relu = false,
          .accumulate = accumulate};
}

// dw (K, C) = dy x^T over the examples, x as rows (N, row_stride)
template <typename T>
Product<T> linear_weight_gradient(const T* dy, int64_t lanes, int64_t n, const T* rows, int64_t row_stride, int64_t c, T* dw) {
  return {.a = dy,
          .a_row = lanes,
          .a_step = 1,
          .b = rows,
          .b_row = row_stride,
          .inner = n,
          .out = dw,
          .out_row = c,
          .bias = nullptr,
          .relu = false,
          .accumulate = false};
}

// Rows [k0, k1) of dw, made where that product's `out` is, or, of a parameter whose gradients are packed, beside it.
template <typename T>
void weight_gradient_rows(const Kernels<T>& kernels, Product<T> dw, int64_t k0, int64_t k1, ParameterStore& store,
                          int parameter) {
  const Packing::Part* packed = store.packed_gradients(parameter);
  const int64_t c = dw.out_row;
  if (!packed) return kernels.product(dw, k0, k1, 0, c);
  thread_local std::vector<T> rows;
  rows.resize(static_cast<size_t>((k1 - k0) * c));
  T* const to = dw.out;
  // The product begins its rows at 0.
  dw.a += k0 * dw.a_row;
  dw.out = rows.data();
  kernels.product(dw, 0, k1 - k0, 0, c);
  const uint64_t* mask = store.mask_of(parameter);
  for (int64_t i = Packing::rank(*packed, mask, k0 * c); i < packed->size && packed->places[i] < k1 * c; ++i) {
    to[i] = rows[static_cast<size_t>(packed->places[i] - k0 * c)];
  }
}

}  // namespace lth
