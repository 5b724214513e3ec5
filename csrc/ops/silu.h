// y = x / (1 + e^-x)      x, y: (R,C)
//
// x may be f32, f16 or bf16 with any row stride and unit stride along C; y has x's type. Arithmetic
// is f32. x and y may be the same memory. Parallel over rows where there are several, else over the
// blocks of kSiluBlock columns of the only row.
#pragma once
#include "core/tensor_view.h"

namespace honed {

inline constexpr int64_t kSiluBlock = 1024;

struct SiluArgs {
  const void* x;
  void* y;
  int64_t rows, cols, x_stride, y_stride;
  DType dtype;
};

// y and x are 2-D.
void silu(const TensorView& y, const TensorView& x);

}  // namespace honed
