// exp, tanh, sigmoid, the normal distribution and the activations made of them, on vf. Errors are
// against float64, in units of the last place.
#pragma once
#include "cpu/simd/vec.h"

HONED_BEGIN_LEVEL
namespace {

// x - n ln 2, with ln 2 in two parts
HONED_INLINE vf minus_ln2(vf x, vf n) {
  return fmadd(n, set1(2.12194440e-4f), fmadd(n, set1(-0.693359375f), x));
}

// e^r 2^n for |r| <= ln(2) / 2 and an integral n in [-126, 128]
HONED_INLINE vf exp_of_parts(vf r, vf n) {
  // 1 + r + r^2 P(r): P is a minimax fit of degree 4 to the relative error, 2^-28.
  vf p = set1(0.00138143208f);
  p = fmadd(p, r, set1(0.00836885106f));
  p = fmadd(p, r, set1(0.0416684011f));
  p = fmadd(p, r, set1(0.166665195f));
  p = fmadd(p, r, set1(0.499999934f));
  p = fmadd(p, r, set1(1.0f));
  return times_exp2(fmadd(p, r, set1(1.0f)), n);
}

// Within 1.1 ulp on [-87.3, 88.7]; 0 below, infinity above; NaN stays NaN.
HONED_INLINE vf vexp(vf x) {
  const vf low = set1(-87.3365448f);
  vf clamped = vmin(set1(89.0f), vmax(low, x));  // a NaN passes: both return it from the right
  vf n = round_even(clamped * set1(1.44269504f));
  return select_less(x, low, zero(), exp_of_parts(minus_ln2(clamped, n), n));
}

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

// The standard normal distribution function P(x) = (1 + erf(x / sqrt 2)) / 2, at the point a = -|x|:
// P(a) = ratio power, P'(a) = power / sqrt(2 pi).
struct NormalTail {
  vf a, ratio, power;
};

// P(a) within 4 ulp down to -12.9, the tail too, which 1 + erf loses below -5; 0 from -14.5 on.
// (Without FMA x^2 / 4 ulp.)
HONED_INLINE NormalTail vnormal(vf x) {
  vf a = vmin(set1(14.5f), vabs(x));  // a NaN passes
  // erfc(a / sqrt 2) / 2 = e^(-a^2 / 2) t P(t - 0.63), t = 1 / (1 + 0.3 a / sqrt 2): P is a minimax
  // fit of degree 8 to the relative error, 0.33 * 2^-24, on [0, 13.3].
  vf t = set1(1.0f) / fmadd(a, set1(0.212132037f), set1(1.0f));
  vf s = t - set1(0.630890071f);
  vf p = set1(-0.0647033453f);
  p = fmadd(p, s, set1(-0.0840893984f));
  p = fmadd(p, s, set1(0.0942855775f));
  p = fmadd(p, s, set1(0.422891319f));
  p = fmadd(p, s, set1(0.702900767f));
  p = fmadd(p, s, set1(0.775380611f));
  p = fmadd(p, s, set1(0.638787687f));
  p = fmadd(p, s, set1(0.409602165f));
  p = fmadd(p, s, set1(0.20670712f));
  // -a^2 / 2 - n ln 2, with ln 2 in two parts, the first times n exact
  vf n = round_even((a * a) * set1(-0.72134752f));
  vf r = fmadd(a, a * set1(-0.5f), n * set1(-0.693359375f));
  return {zero() - a, p * t, exp_of_parts(fmadd(n, set1(2.12194440e-4f), r), n)};
}

// To a relative 2^-15, in two thirds of the operations: for results rounded to 16 bits.
HONED_INLINE NormalTail vnormal_16(vf x) {
  vf a = vmin(set1(14.5f), vabs(x));
  vf t = set1(1.0f) / fmadd(a, set1(0.282842726f), set1(1.0f));  // as above, of degree 5
  vf s = t - set1(0.60504204f);
  vf p = set1(-0.0731224194f);
  p = fmadd(p, s, set1(0.0443185344f));
  p = fmadd(p, s, set1(0.303082496f));
  p = fmadd(p, s, set1(0.45519942f));
  p = fmadd(p, s, set1(0.407655239f));
  p = fmadd(p, s, set1(0.248946846f));
  vf y = (a * a) * set1(-0.72134752f), n = round_even(y), r = y - n;
  vf e = set1(0.00957010156f);  // 2^r
  e = fmadd(e, r, set1(0.0559178599f));
  e = fmadd(e, r, set1(0.240247441f));
  e = fmadd(e, r, set1(0.693121813f));
  e = fmadd(e, r, set1(0.999999285f));
  return {zero() - a, p * t, times_exp2(e, n)};
}

// x P(x) and its slope P(x) + x P'(x): that at x > 0 is 1 less that at -x.
HONED_INLINE vf gelu_from(NormalTail n, vf x) {
  return fmadd(n.a, n.ratio * n.power, vmax(zero(), x));
}
HONED_INLINE vf gelu_slope_from(NormalTail n, vf x) {
  vf slope = n.power * fmadd(n.a, set1(0.398942280f), n.ratio);
  return select_less(x, zero(), slope, set1(1.0f) - slope);
}

// x / (1 + e^-x)
HONED_INLINE vf vsilu(vf x) { return x / (set1(1.0f) + vexp(zero() - x)); }

HONED_INLINE vf vgelu(vf x) { return gelu_from(vnormal(x), x); }

// x (1 + tanh u) / 2 = x / (1 + e^-2u), u = sqrt(2 / pi) (x + 0.044715 x^3)
[[maybe_unused]] constexpr double kGeluLinear = -1.5957691216057308,
                                  kGeluCubic = -0.0713548162726002527;
HONED_INLINE vf vgelu_tanh(vf x) {
  vf minus_2u = x * fmadd(x * x, set1(float(kGeluCubic)), set1(float(kGeluLinear)));
  return x / (set1(1.0f) + vexp(minus_2u));
}

}  // namespace
HONED_END_LEVEL
