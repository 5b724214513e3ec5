// y[r,c] = e^(x[r,c] - max_c x[r,:]) / sum_c e^(x[r,c] - max_c x[r,:])      x, y: (R,C)
// dx[r,c] = y (g - sum_c(g y))                                              g = dy
//
// x may be of any element type, with any row stride and unit stride along C; y has x's type, or f32
// beside a narrower x. Sums are f32, f64 for f64. A row of -inf alone, or with a NaN or +inf in it,
// becomes NaN as in torch. x and y may be the same memory when their types are the same. Over a
// dimension that is not the last, a tensor is (R,C,I), contiguous. Parallel over rows; few wide rows
// over pieces of kSoftmaxPiece, which are put together in their order; with I over kSoftmaxInner.
#pragma once
#include "core/tensor_view.h"

namespace honed {

inline constexpr int64_t kSoftmaxPiece = 16384, kSoftmaxInner = 64;

struct SoftmaxArgs {
  const void* x;
  void* y;
  int64_t rows, cols, x_stride, y_stride;
  DType dtype, y_dtype;
  bool log;                // log_softmax
  int64_t inner = 1;       // I
  void* buffer = nullptr;  // (C) of the type of sums, where y is narrower, not for log
  void* parts = nullptr;   // (R, pieces, 2): maximum and sum of a piece
};

struct SoftmaxBackwardArgs {
  const void *g, *y;
  void* dx;
  int64_t rows, cols, g_stride, y_stride, dx_stride;
  DType dtype, y_dtype;  // dtype: of dx; g has y's
  bool log;
  int64_t inner = 1;
};

// Over dimension `dim` of tensors of one shape: 2-D where it is the last, else contiguous.
void softmax(const TensorView& y, const TensorView& x, int dim);
void softmax_backward(const TensorView& dx, const TensorView& g, const TensorView& y, int dim);

// The same for log_softmax.
void run_softmax(const char* op, const TensorView& y, const TensorView& x, int dim, bool log);
void run_softmax_backward(const char* op, const TensorView& dx, const TensorView& g,
                          const TensorView& y, int dim, bool log);

}  // namespace honed
