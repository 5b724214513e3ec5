// The functions of math.h on vectors of double, by the C library lane by lane: right, not fast.
#pragma once
#include "cpu/simd/math.h"
#include "cpu/simd/vec_f64.h"

HONED_BEGIN_LEVEL
namespace {

template <class F>
HONED_INLINE vd by_lanes(vd x, F&& f) {
  for (int i = 0; i < kDoubles; ++i) x[i] = f(x[i]);
  return x;
}

HONED_INLINE vd vexp(vd x) {
  return by_lanes(x, [](double v) { return __builtin_exp(v); });
}
HONED_INLINE vd vtanh(vd x) {
  return by_lanes(x, [](double v) { return __builtin_tanh(v); });
}

struct NormalOf64 {
  vd below, density;
};
HONED_INLINE NormalOf64 vnormal(vd x) {
  return {by_lanes(x, [](double v) { return 0.5 * __builtin_erfc(v * -0.70710678118654752440); }),
          vexp(x * x * -0.5) * 0.39894228040143267794};
}
HONED_INLINE vd gelu_from(NormalOf64 n, vd x) { return x * n.below; }
HONED_INLINE vd gelu_slope_from(NormalOf64 n, vd x) { return n.below + x * n.density; }

}  // namespace
HONED_END_LEVEL
