// y = activation(scale * a b + left right + bias) + residual
//
// a: (..., M, K)  b: (..., K, N)  y: (..., M, N), the same leading dimensions (a stride of 0 repeats
// a matrix), any strides. left: (M, R), right: (R, N), R small, and bias: (N,), residual: like y,
// only without leading dimensions. All of one type: f64, f32, f16 or bf16; sums are f64 for f64,
// f32 for the others.
#pragma once
#include "ops/linear.h"

namespace honed {

// A product of strided operands, computed where they lie: few rows, or too small to arrange.
struct MatmulArgs {
  const void *a, *b;
  int64_t m, n, k;
  int64_t a_row, a_col, b_row, b_col;  // strides, in elements
  double scale;
  const void* bias;
  Activation activation;
  const void* residual;
  int64_t residual_row, residual_col;
  void* y;
  int64_t y_row, y_col;
  DType dtype;
};

void matmul(const TensorView& y, const TensorView& a, const TensorView& b,
            const Epilogue& epilogue = {});

}  // namespace honed
