// y[r,c] = x[r,c] / rms(x[r,:]) * w[c]        rms(x) = sqrt(mean_c(x^2) + eps); x, y: (R,C)
// dx[r,c] = (g w - n mean_c(g w n)) / rms, dw[c] = sum_r g n        g: dy, n = x / rms
//
// Any element type with any row stride and unit stride along C; w: (C,) or absent, of a type of its
// own beside a type narrower than f64; y, dx and g have x's type, dw has w's. Sums are f32, f64 for
// f64. x and y may be the same memory. Parallel over rows; backward over blocks of kNormRows rows,
// whose sums of dw are added in their order.
#pragma once
#include "core/tensor_view.h"

namespace honed {

inline constexpr int64_t kNormRows = 32;

struct RmsNormArgs {
  const void* x;
  const void* w;  // nullptr: ones
  void* y;
  int64_t rows, cols, x_stride, y_stride;
  double eps;
  DType dtype, w_dtype;
};

struct RmsNormBackwardArgs {
  const void *g, *x, *w;  // w nullptr: ones
  void *dx, *sums;        // nullptr: not wanted; sums: (blocks,C) of dw
  int64_t rows, cols, g_stride, x_stride, dx_stride;
  double eps;
  DType dtype, w_dtype;
};

// y, x, dx and g are 2-D; dx or dw nullptr: not wanted.
void rms_norm(const TensorView& y, const TensorView& x, const TensorView* w, double eps);
void rms_norm_backward(const TensorView* dx, const TensorView* dw, const TensorView& g,
                       const TensorView& x, const TensorView* w, double eps);

}  // namespace honed
