// Activations and their slopes, on vectors of float and of double, for elements of type T: results
// that are rounded to 16 bits need fewer operations.
#pragma once
#include "cpu/simd/math.h"
#include "cpu/simd/math_f64.h"

HONED_BEGIN_LEVEL
namespace {

template <class T>
struct WithSlope {
  Vec<T> value, slope;
};

template <class T>
HONED_INLINE Vec<T> all(double x) {
  return set1(Sum<T>(x));
}

template <class T>
HONED_INLINE Vec<T> silu_of(Vec<T> x) {
  return x / (all<T>(1) + vexp(-x));
}

template <class T>
HONED_INLINE WithSlope<T> silu_with_slope(Vec<T> x) {
  Vec<T> s = all<T>(1) / (all<T>(1) + vexp(-x));
  return {x * s, s * fmadd(x, all<T>(1) - s, all<T>(1))};
}

template <class T>
HONED_INLINE auto normal_of(Vec<T> x) {
  if constexpr (sizeof(T) == 2)
    return vnormal_16(x);
  else
    return vnormal(x);
}

template <class T, bool tanh>
HONED_INLINE Vec<T> gelu_of(Vec<T> x) {
  if constexpr (tanh)
    return x / (all<T>(1) + vexp(x * fmadd(x * x, all<T>(kGeluCubic), all<T>(kGeluLinear))));
  else
    return gelu_from(normal_of<T>(x), x);
}

template <class T, bool tanh>
HONED_INLINE WithSlope<T> gelu_with_slope(Vec<T> x) {
  if constexpr (tanh) {
    Vec<T> one = all<T>(1), square = x * x;
    Vec<T> u = fmadd(square, all<T>(kGeluCubic), all<T>(kGeluLinear));  // by x: -2u
    Vec<T> s = one / (one + vexp(x * u));
    Vec<T> du = fmadd(square, all<T>(3 * kGeluCubic), all<T>(kGeluLinear));
    return {x * s, s * (one - x * du * (one - s))};
  } else {
    auto n = normal_of<T>(x);
    return {gelu_from(n, x), gelu_slope_from(n, x)};
  }
}

}  // namespace
HONED_END_LEVEL
