// y[r,c] = (x[r,c] - mean_c) / sqrt(var_c + eps) * w[c] + b[c]      x, y: (R,C); w, b: (C,) or
// absent
//
// mean and var (biased) are of the row x[r,:]. x may be f32, f16 or bf16 with any row stride and
// unit stride along C; w and b may have a type of their own, the same for both; y has x's type.
// Sums are f32, the variance is summed around the mean. x and y may be the same memory. Parallel
// over rows.
#pragma once
#include "core/tensor_view.h"

namespace honed {

struct LayerNormArgs {
  const void* x;
  const void* w;  // nullptr: ones
  const void* b;  // nullptr: zeros
  void* y;
  int64_t rows, cols, x_stride, y_stride;
  float eps;
  DType dtype, w_dtype;  // w_dtype: of w and b
};

// y and x are 2-D.
void layer_norm(const TensorView& y, const TensorView& x, const TensorView* w, const TensorView* b,
                float eps);

}  // namespace honed
