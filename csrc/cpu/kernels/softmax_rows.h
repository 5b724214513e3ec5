// Rows of softmax and log_softmax: the maximum, the sum of exponentials, the results.
#pragma once
#include "cpu/kernels/row_sums.h"
#include "cpu/simd/math_f64.h"
#include "cpu/visit.h"
#include "ops/softmax.h"

HONED_BEGIN_LEVEL
namespace {

[[maybe_unused]] constexpr float kInfinity = __builtin_inff();

HONED_INLINE float logarithm(float x) { return __builtin_logf(x); }
HONED_INLINE double logarithm(double x) { return __builtin_log(x); }

template <class T>
HONED_INLINE Sum<T> max_of(const T* x, int64_t cols) {
  constexpr int kStep = kLanesOf<T>;
  Vec<T> none = set1(Sum<T>(-kInfinity)), top[4] = {none, none, none, none};
  int64_t c = 0;
  for (; c + 4 * kStep <= cols; c += 4 * kStep)
    for (int u = 0; u < 4; ++u) top[u] = vmax(load(x + c + u * kStep), top[u]);
  for (; c < cols; c += kStep) {
    int n = cols - c < kStep ? int(cols - c) : kStep;
    top[0] = vmax(n == kStep ? load(x + c) : keep_first(load(x + c, n), n, none), top[0]);
  }
  return reduce_max(vmax(vmax(top[0], top[1]), vmax(top[2], top[3])));
}

// Sum of e^(x - max); put(c, e, n) gets every one.
template <class T, class F>
HONED_INLINE Sum<T> exponentials(const T* x, int64_t cols, Sum<T> max, F&& put) {
  Vec<T> m = set1(max);
  return sum_row<T>(cols, [&](int64_t c, int n) {
    Vec<T> e = vexp(load(x + c, n) - m);
    put(c, e, n);
    return e;
  });
}

// Calls body(Tag of x, Tag of y).
template <class F>
HONED_INLINE void visit_softmax(DType dtype, DType y_dtype, F&& body) {
  if (dtype == y_dtype)
    visit_real(dtype, [&](auto t) { body(t, t); });
  else
    visit_float(dtype, [&](auto t) { body(t, Tag<float>{}); });
}

template <class T, class Y>
void log_softmax_row(const T* x, Y* y, int64_t cols, Sum<T> max, Sum<T> log_sum) {
  Vec<T> m = set1(max), l = set1(log_sum);
  for_lanes_of<T>(cols, [&](int64_t c, int n) { store(y + c, load(x + c, n) - m - l, n); });
}

}  // namespace
HONED_END_LEVEL
