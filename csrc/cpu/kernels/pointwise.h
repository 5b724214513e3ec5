// The walk of elementwise kernels over their operands and results.
#pragma once
#include "cpu/simd/vec_f64.h"
#include "cpu/visit.h"
#include "ops/_pointwise.h"

HONED_BEGIN_LEVEL
namespace {

template <class T>
HONED_INLINE const T* operand(const PointwiseArgs& a, int k, int64_t row, int64_t column) {
  return static_cast<const T*>(a.in[k]) + row * a.in_stride[k] + column;
}
template <class T>
HONED_INLINE T* result(const PointwiseArgs& a, int k, int64_t row, int64_t column) {
  return a.out[k] ? static_cast<T*>(a.out[k]) + row * a.out_stride[k] + column : nullptr;
}

// Calls span(Tag of the element type, row, first column, columns).
template <class F>
HONED_INLINE void for_spans(const PointwiseArgs& a, int64_t begin, int64_t end, F&& span) {
  visit_real(a.dtype, [&](auto t) {
    if (a.rows == 1) {
      int64_t first = begin * kPointwiseBlock, last = end * kPointwiseBlock;
      span(t, 0, first, (last < a.cols ? last : a.cols) - first);
    } else {
      for (int64_t row = begin; row < end; ++row) span(t, row, 0, a.cols);
    }
  });
}

// out[0] = f(Tag, in[0]), of vectors.
template <class F>
HONED_INLINE void map_one(const PointwiseArgs& a, int64_t begin, int64_t end, F&& f) {
  for_spans(a, begin, end, [&](auto t, int64_t row, int64_t column, int64_t count) {
    using T = typename decltype(t)::type;
    const T* x = operand<T>(a, 0, row, column);
    T* y = result<T>(a, 0, row, column);
    for_lanes_of<T>(count, [&](int64_t i, int n) { store(y + i, f(t, load(x + i, n)), n); });
  });
}

// out[0] = f(Tag, in[0], in[1])
template <class F>
HONED_INLINE void map_two(const PointwiseArgs& a, int64_t begin, int64_t end, F&& f) {
  for_spans(a, begin, end, [&](auto t, int64_t row, int64_t column, int64_t count) {
    using T = typename decltype(t)::type;
    const T *x = operand<T>(a, 0, row, column), *g = operand<T>(a, 1, row, column);
    T* y = result<T>(a, 0, row, column);
    for_lanes_of<T>(
        count, [&](int64_t i, int n) { store(y + i, f(t, load(x + i, n), load(g + i, n)), n); });
  });
}

// Gradients of activation(in[0]) in[1] for that of the result, in[2]; f(Tag, x) gives the
// activation and its slope.
template <class F>
HONED_INLINE void map_gated_backward(const PointwiseArgs& a, int64_t begin, int64_t end, F&& f) {
  for_spans(a, begin, end, [&](auto t, int64_t row, int64_t column, int64_t count) {
    using T = typename decltype(t)::type;
    const T *gate = operand<T>(a, 0, row, column), *up = operand<T>(a, 1, row, column),
            *g = operand<T>(a, 2, row, column);
    T *d_gate = result<T>(a, 0, row, column), *d_up = result<T>(a, 1, row, column);
    for_lanes_of<T>(count, [&](int64_t i, int n) {
      auto activated = f(t, load(gate + i, n));
      Vec<T> along = load(g + i, n);
      Vec<T> back = along * load(up + i, n) * activated.slope;
      if (d_up) store(d_up + i, along * activated.value, n);
      if (d_gate) store(d_gate + i, back, n);
    });
  });
}

}  // namespace
HONED_END_LEVEL
