// Rotary position embedding.      x, y: (B,T,H,D); cos, sin: (P,R/2); positions: (B,T) i64 or
// absent
//
//   y[i] = x[i] cos[p,j] - x[k] sin[p,j]     y[k] = x[k] cos[p,j] + x[i] sin[p,j]     j in [0, R/2)
//
// with (i, k) = (j, j + R/2), the "half" layout of Llama and NeoX, or (2j, 2j + 1), the interleaved
// one of GPT-J. Elements from R on are copied. p is positions[b,t], or first_position + t. The
// inverse, by the negative angle, takes the gradient of y to that of x.
//
// x and y are f64, f32, f16 or bf16 of one type with any strides but unit stride along D; y's memory
// is x's or does not touch it. The tables are f32, or f64 beside f64. Arithmetic is f32, f64 for f64.
// Parallel over B * T.
#pragma once
#include "core/tensor_view.h"

namespace honed {

struct RopeArgs {
  const void* x;
  void* y;
  int64_t x_stride[3], y_stride[3];  // batch, time, head
  const void *cos, *sin;
  int64_t table_stride;
  const int64_t* positions;  // nullptr: first_position, first_position + 1, ...
  int64_t positions_stride;  // a batch; 0: the same for all
  int64_t first_position;
  int64_t batch, time, heads, head_dim, rotary_dim;
  bool interleaved, inverse, wide_tables;  // f64
  DType dtype;
};

// y and x are 4-D with unit stride along D; positions, where given, is a contiguous (B,T) or (T,).
// A position outside the tables throws std::out_of_range (Python IndexError).
void rope(const TensorView& y, const TensorView& x, const TensorView& cos, const TensorView& sin,
          const TensorView* positions, bool interleaved, bool inverse);

}  // namespace honed
