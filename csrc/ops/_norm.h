// What the normalisations share: arguments, checks, and sums over rows that do not depend on the
// threads.
#pragma once
#include "core/arena.h"
#include "core/tensor_view.h"

namespace honed {

// y[r,c] = n[r,c] w[c] + b[c]      n: the row s = x[r,:], or x + add rounded to their type, normed
//
// Any element type with any row stride and unit stride along C; y, add and sum have x's type. Sums
// are f32, f64 for f64; w and b: (C,) or absent, of the sums' type: the ops take them in any type
// narrower than f64 beside such an x, the same for both, and widen them. x and y may be the same
// memory. Parallel over rows.
struct NormArgs {
  const void* x;
  const void* w;  // nullptr: ones
  const void* b;  // nullptr: zeros
  void* y;
  int64_t rows, cols, x_stride, y_stride;
  double eps;
  DType dtype;
  const void* add = nullptr;  // of add_* only
  void* sum = nullptr;        // s, with y's row stride
  int64_t add_stride = 0;
};

// dx = d y / d s applied to g, and g_sum added; dw[c] = sum_r g n, db[c] = sum_r g. Parallel over
// blocks of block_rows rows, whose sums are added in their order.
struct NormBackwardArgs {
  const void *g, *x, *w;       // w nullptr: ones; x: s
  const void* g_sum;           // nullptr: zeros
  void *dx, *w_sums, *b_sums;  // nullptr: not wanted; sums: (blocks,C)
  int64_t rows, cols, block_rows, g_stride, x_stride, g_sum_stride, dx_stride;
  double eps;
  DType dtype;
};

// to[c] = sum_i from[i,c] in the order of i        from: (R,C) f32, f64 where to is f64
struct ColumnSumsArgs {
  const void* from;
  void* to;
  int64_t rows, cols;
  DType dtype;  // of to
};
inline constexpr int64_t kSumColumns = 64;  // columns an item

// to[c] = from[c]        from: f16 or bf16, to: f32; in items of kWidenItem
struct WidenArgs {
  const void* from;
  float* to;
  int64_t count;
  DType dtype;  // of from
};
inline constexpr int64_t kWidenItem = 16384;

// x: (R,C), w and b: (C,) or absent, and for a backward g like x.
void check_norm(const char* op, const TensorView& x, const TensorView* w, const TensorView* b,
                const TensorView* g = nullptr);

// to = sums of the columns of from, (rows,C).
void add_columns(const void* from, int64_t rows, const TensorView& to);

struct NormTensors {  // 2-D but w and b
  const TensorView &y, &x;
  const TensorView *w, *b;
  const TensorView* add = nullptr;
  const TensorView* sum = nullptr;
};
// Runs the kernel of a forward; grain: rows a thread should get at least.
void norm(void (*kernel)(const NormArgs&, int64_t, int64_t), const NormTensors& t, double eps,
          int64_t grain);

struct NormGradients {  // 2-D but w, dw and db; nullptr: not wanted, or zeros
  const TensorView *dx, *dw, *db;
  const TensorView &g, &x;
  const TensorView* w;
  const TensorView* g_sum = nullptr;
};
// Runs the kernel of a backward and adds the sums of its blocks.
void norm_backward(void (*kernel)(const NormBackwardArgs&, int64_t, int64_t),
                   const NormGradients& t, double eps);

}  // namespace honed
