// y[r,c] = e^(x[r,c] - max_c x[r,:]) / sum_c e^(x[r,c] - max_c x[r,:])      x, y: (R,C)
//
// x may be f32, f16 or bf16 with any row stride and unit stride along C; y has x's type or f32.
// Sums are f32. A row of -inf alone, or with a NaN or +inf in it, becomes NaN as in torch. x and y
// may be the same memory when their types are the same. Parallel over rows.
#pragma once
#include "core/tensor_view.h"

namespace honed {

struct SoftmaxArgs {
  const void* x;
  void* y;
  int64_t rows, cols, x_stride, y_stride;
  DType dtype, y_dtype;
};

// y and x are 2-D.
void softmax(const TensorView& y, const TensorView& x);

}  // namespace honed
