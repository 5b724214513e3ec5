// y = act(scale a b + bias) + residual for strided operands, an element of y at a time.
#include "ops/matmul.h"

#include "cpu/simd/math.h"
#include "cpu/visit.h"

HONED_BEGIN_LEVEL

namespace {

HONED_INLINE double value_of(double x) { return x; }
template <class T>
HONED_INLINE float value_of(T x) {
  return scalar(x);
}
HONED_INLINE void put(double* y, double v) { *y = v; }
template <class T>
HONED_INLINE void put(T* y, float v) {
  store(y, set1(v), 1);
}

HONED_INLINE double activate(double x, Activation activation) {
  if (activation == Activation::none) return x;
  if (activation == Activation::relu) return x > 0 ? x : 0;
  return 0.0 / 0.0;
}
HONED_INLINE float activate(float x, Activation activation) {
  vf v = set1(x);
  switch (activation) {
    case Activation::none:
      break;
    case Activation::relu:
      v = vmax(zero(), v);
      break;
    case Activation::gelu:
      v = vgelu(v);
      break;
    case Activation::gelu_tanh:
      v = vgelu_tanh(v);
      break;
    case Activation::silu:
      v = vsilu(v);
      break;
  }
  float lane[kLanes];
  store(lane, v);
  return lane[0];
}

template <class S, class T>
void rows(const MatmulArgs& p, int64_t begin, int64_t end) {
  const T *a = static_cast<const T*>(p.a), *b = static_cast<const T*>(p.b);
  for (int64_t m = begin; m < end; ++m)
    for (int64_t n = 0; n < p.n; ++n) {
      S sum = 0;
      for (int64_t k = 0; k < p.k; ++k)
        sum += value_of(a[m * p.a_row + k * p.a_col]) * value_of(b[k * p.b_row + n * p.b_col]);
      sum *= S(p.scale);
      if (p.bias) sum += value_of(static_cast<const T*>(p.bias)[n]);
      sum = activate(sum, p.activation);
      if (p.residual)
        sum += value_of(static_cast<const T*>(p.residual)[m * p.residual_row + n * p.residual_col]);
      put(static_cast<T*>(p.y) + m * p.y_row + n * p.y_col, sum);
    }
}

}  // namespace

void matmul(const MatmulArgs& p, int64_t begin, int64_t end) {
  if (p.dtype == DType::f64)
    rows<double, double>(p, begin, end);
  else
    visit_float(p.dtype, [&](auto t) { rows<float, typename decltype(t)::type>(p, begin, end); });
}

HONED_END_LEVEL
