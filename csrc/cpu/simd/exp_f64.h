// e^(x - max) in f64 with the same bits at every level: no product is contracted into an addition,
// sums have one fixed order.
#pragma once
#include "cpu/simd/vec.h"

HONED_BEGIN_LEVEL
namespace {

[[maybe_unused]] constexpr int kExpBlock = 32;

constexpr int kDoubles = kLanes / 2;
typedef double vd __attribute__((vector_size(kDoubles * 8)));
typedef int64_t vl __attribute__((vector_size(kDoubles * 8)));
typedef float vh __attribute__((vector_size(kDoubles * 4)));

HONED_INLINE vd times(vd a, vd b) {
  vd product = a * b;
  asm("" : "+x"(product));  // the compiler cannot look through this, so it cannot fuse
  return product;
}
HONED_INLINE vd all(double x) { return vd{} + x; }

// Within 1.5 ulp for x - max in [-708, 0]; 0 below.
HONED_INLINE void exp_lanes(const float* x, double max, double* w) {
  vh narrow;
  __builtin_memcpy(&narrow, x, sizeof narrow);
  vd d = __builtin_convertvector(narrow, vd) - all(max);
  vl small = d < all(-708.0);
  d = (vd)((vl)d & ~small);
  vd magic = all(0x1.8p52);  // adding it leaves the nearest integer in the low bits
  vd shifted = times(d, all(1.4426950408889634)) + magic;
  vd n = shifted - magic;
  vd r = d - times(n, all(6.93147180369123816490e-01));
  r = r - times(n, all(1.90821492927058770002e-10));
  const double c[] = {1.0 / 6227020800,
                      1.0 / 479001600,
                      1.0 / 39916800,
                      1.0 / 3628800,
                      1.0 / 362880,
                      1.0 / 40320,
                      1.0 / 5040,
                      1.0 / 720,
                      1.0 / 120,
                      1.0 / 24,
                      1.0 / 6,
                      0.5,
                      1.0,
                      1.0};
  vd p = all(c[0]);  // Taylor to r^13: 0.347^14 / 14! is 4e-18
  for (int i = 1; i < 14; ++i) p = times(p, r) + all(c[i]);
  vl power = ((vl)shifted + 1023) << 52;  // 2^n
  vd y = times(p, (vd)power);
  y = (vd)((vl)y & ~small);
  __builtin_memcpy(w, &y, sizeof y);
}

HONED_INLINE void exp8(const float* x, double max, double* w) {
  for (int i = 0; i < 8; i += kDoubles) exp_lanes(x + i, max, w + i);
}
HONED_INLINE void exp_block(const float* x, double max, double* w) {
  for (int i = 0; i < kExpBlock; i += kDoubles) exp_lanes(x + i, max, w + i);
}

HONED_INLINE double sum_block(const double* w) {
  double s[8];
  for (int i = 0; i < 8; ++i) s[i] = (w[i] + w[8 + i]) + (w[16 + i] + w[24 + i]);
  return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

}  // namespace
HONED_END_LEVEL
