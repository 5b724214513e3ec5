// y = x / rms(x) * w, two passes over a row that fits the first-level cache.
#include "ops/rms_norm.h"

#include "cpu/visit.h"

HONED_BEGIN_LEVEL

namespace {

template <class T, class W>
void rows(const RmsNormArgs& a, int64_t begin, int64_t end) {
  const W* w = static_cast<const W*>(a.w);
  for (int64_t r = begin; r < end; ++r) {
    const T* x = static_cast<const T*>(a.x) + r * a.x_stride;
    T* y = static_cast<T*>(a.y) + r * a.y_stride;
    vf sum[4] = {zero(), zero(), zero(), zero()};
    int64_t c = 0;
    for (; c + 4 * kLanes <= a.cols; c += 4 * kLanes)
      for (int u = 0; u < 4; ++u) {
        vf v = load(x + c + u * kLanes);
        sum[u] = fmadd(v, v, sum[u]);
      }
    for_lanes(a.cols - c, [&](int64_t i, int n) {
      vf v = load(x + c + i, n);
      sum[0] = fmadd(v, v, sum[0]);
    });
    float total = reduce_add((sum[0] + sum[1]) + (sum[2] + sum[3]));
    vf scale = set1(1.0f / __builtin_sqrtf(total / float(a.cols) + a.eps));
    for_lanes(a.cols, [&](int64_t i, int n) {
      vf v = load(x + i, n) * scale;
      store(y + i, w ? v * load(w + i, n) : v, n);
    });
  }
}

}  // namespace

void rms_norm(const RmsNormArgs& a, int64_t begin, int64_t end) {
  visit_float(a.dtype, [&](auto t) {
    visit_float(a.w_dtype, [&](auto w) {
      rows<typename decltype(t)::type, typename decltype(w)::type>(a, begin, end);
    });
  });
}

HONED_END_LEVEL
