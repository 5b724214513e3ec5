// y = (x - mean) / sqrt(var + eps) * w + b, three passes over a row that fits the first-level
// cache.
#include "ops/layer_norm.h"

#include "cpu/visit.h"

HONED_BEGIN_LEVEL

namespace {

// Sum over c of f(x[c], lanes in use), in four independent chains.
template <class T, class F>
HONED_INLINE float sum_of(const T* x, int64_t cols, F&& f) {
  vf sum[4] = {zero(), zero(), zero(), zero()};
  int64_t c = 0;
  for (; c + 4 * kLanes <= cols; c += 4 * kLanes)
    for (int u = 0; u < 4; ++u) sum[u] = sum[u] + f(load(x + c + u * kLanes), kLanes);
  for_lanes(cols - c, [&](int64_t i, int n) { sum[0] = sum[0] + f(load(x + c + i, n), n); });
  return reduce_add((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

template <class T, class W>
void rows(const LayerNormArgs& a, int64_t begin, int64_t end) {
  const W* w = static_cast<const W*>(a.w);
  const W* b = static_cast<const W*>(a.b);
  for (int64_t r = begin; r < end; ++r) {
    const T* x = static_cast<const T*>(a.x) + r * a.x_stride;
    T* y = static_cast<T*>(a.y) + r * a.y_stride;
    vf mean = set1(sum_of(x, a.cols, [](vf v, int) { return v; }) / float(a.cols));
    float squares = sum_of(x, a.cols, [&](vf v, int n) {
      vf d = n == kLanes ? v - mean : keep_first(v - mean, n, zero());
      return d * d;
    });
    vf scale = set1(1.0f / __builtin_sqrtf(squares / float(a.cols) + a.eps));
    for_lanes(a.cols, [&](int64_t i, int n) {
      vf v = (load(x + i, n) - mean) * scale;
      if (w && b)
        v = fmadd(v, load(w + i, n), load(b + i, n));
      else if (w)
        v = v * load(w + i, n);
      else if (b)
        v = v + load(b + i, n);
      store(y + i, v, n);
    });
  }
}

}  // namespace

void layer_norm(const LayerNormArgs& a, int64_t begin, int64_t end) {
  visit_float(a.dtype, [&](auto t) {
    visit_float(a.w_dtype, [&](auto w) {
      rows<typename decltype(t)::type, typename decltype(w)::type>(a, begin, end);
    });
  });
}

HONED_END_LEVEL
