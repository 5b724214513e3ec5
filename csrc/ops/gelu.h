// y = x * P(x)      x, y: (R,C)
//
// P is the standard normal distribution function, (1 + erf(x / sqrt 2)) / 2, or with `tanh` its
// approximation (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2.
//
// x may be f32, f16 or bf16 with any row stride and unit stride along C; y has x's type. Arithmetic
// is f32. x and y may be the same memory. Parallel over rows where there are several, else over the
// blocks of kGeluBlock columns of the only row.
#pragma once
#include "core/tensor_view.h"

namespace honed {

inline constexpr int64_t kGeluBlock = 1024;

struct GeluArgs {
  const void* x;
  void* y;
  int64_t rows, cols, x_stride, y_stride;
  bool tanh;
  DType dtype;
};

// y and x are 2-D.
void gelu(const TensorView& y, const TensorView& x, bool tanh);

}  // namespace honed
