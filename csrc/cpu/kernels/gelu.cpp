// y = x * P(x), P the normal distribution function or its tanh approximation.
#include "ops/gelu.h"

#include "cpu/simd/math.h"
#include "cpu/visit.h"

HONED_BEGIN_LEVEL

namespace {

template <class T>
void span(const T* x, T* y, int64_t count, bool tanh) {
  if (tanh)
    for_lanes(count, [&](int64_t i, int n) { store(y + i, vgelu_tanh(load(x + i, n)), n); });
  else
    for_lanes(count, [&](int64_t i, int n) {
      vf v = load(x + i, n);
      store(y + i, sizeof(T) == 2 ? vgelu_16(v) : vgelu(v), n);
    });
}

}  // namespace

void gelu(const GeluArgs& a, int64_t begin, int64_t end) {
  visit_float(a.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    const T* x = static_cast<const T*>(a.x);
    T* y = static_cast<T*>(a.y);
    if (a.rows == 1) {
      int64_t first = begin * kGeluBlock, last = end * kGeluBlock;
      if (last > a.cols) last = a.cols;
      span(x + first, y + first, last - first, a.tanh);
    } else {
      for (int64_t r = begin; r < end; ++r)
        span(x + r * a.x_stride, y + r * a.y_stride, a.cols, a.tanh);
    }
  });
}

HONED_END_LEVEL
