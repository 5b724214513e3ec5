// Sums along a row, in four independent chains.
#pragma once
#include "cpu/simd/vec_f64.h"

HONED_BEGIN_LEVEL
namespace {

HONED_INLINE float square_root(float x) { return __builtin_sqrtf(x); }
HONED_INLINE double square_root(double x) { return __builtin_sqrt(x); }

// Sum over c of f(c, n), vectors of the n elements from c on, in the steps of T. What f gives beyond
// n is not counted.
template <class T, class F>
HONED_INLINE Sum<T> sum_row(int64_t cols, F&& f) {
  constexpr int kStep = kLanesOf<T>;
  Vec<T> none = set1(Sum<T>(0)), sum[4] = {none, none, none, none};
  int64_t c = 0;
  for (; c + 4 * kStep <= cols; c += 4 * kStep)
    for (int u = 0; u < 4; ++u) sum[u] = sum[u] + f(c + u * kStep, kStep);
  for (; c + kStep <= cols; c += kStep) sum[0] = sum[0] + f(c, kStep);
  if (c < cols) {
    int n = int(cols - c);
    sum[1] = sum[1] + keep_first(f(c, n), n, none);
  }
  return reduce_add((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

}  // namespace
HONED_END_LEVEL
