// y[r,c] = x[r,c] / sqrt(mean_c(x[r,:]^2) + eps) * w[c]      x, y: (R,C); w: (C,) or absent
//
// x may be f32, f16 or bf16 with any row stride and unit stride along C; w may have a type of its
// own; y has x's type. Sums are f32. x and y may be the same memory. Parallel over rows.
#pragma once
#include "core/tensor_view.h"

namespace honed {

struct RmsNormArgs {
  const void* x;
  const void* w;  // nullptr: ones
  void* y;
  int64_t rows, cols, x_stride, y_stride;
  float eps;
  DType dtype, w_dtype;
};

// y and x are 2-D.
void rms_norm(const TensorView& y, const TensorView& x, const TensorView* w, float eps);

}  // namespace honed
