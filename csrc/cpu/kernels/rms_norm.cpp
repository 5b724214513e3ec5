// y = x / rms(x) * w and its gradients: two passes over a row that fits the first-level cache.
#include "ops/rms_norm.h"

#include "cpu/kernels/row_sums.h"
#include "cpu/visit.h"

HONED_BEGIN_LEVEL

namespace {

template <class T>
HONED_INLINE Sum<T> inverse_rms(const T* x, int64_t cols, double eps) {
  auto squares = sum_row<T>(cols, [&](int64_t c, int n) {
    Vec<T> v = load(x + c, n);
    return v * v;
  });
  return Sum<T>(1) / square_root(squares / Sum<T>(cols) + Sum<T>(eps));
}

template <class T, class W>
void rows(const RmsNormArgs& a, int64_t begin, int64_t end) {
  const W* w = static_cast<const W*>(a.w);
  for (int64_t r = begin; r < end; ++r) {
    const T* x = static_cast<const T*>(a.x) + r * a.x_stride;
    T* y = static_cast<T*>(a.y) + r * a.y_stride;
    Vec<T> scale = set1(inverse_rms(x, a.cols, a.eps));
    for_lanes_of<T>(a.cols, [&](int64_t i, int n) {
      Vec<T> v = load(x + i, n) * scale;
      store(y + i, w ? v * load(w + i, n) : v, n);
    });
  }
}

template <class T, class W>
void rows_backward(const RmsNormBackwardArgs& a, int64_t block) {
  using V = Vec<T>;
  const W* w = static_cast<const W*>(a.w);
  Sum<T>* sums = a.sums ? static_cast<Sum<T>*>(a.sums) + block * a.cols : nullptr;
  int64_t first = block * kNormRows, last = first + kNormRows < a.rows ? first + kNormRows : a.rows;
  for (int64_t r = first; r < last; ++r) {
    const T* x = static_cast<const T*>(a.x) + r * a.x_stride;
    const T* g = static_cast<const T*>(a.g) + r * a.g_stride;
    auto scaled = [&](int64_t c, int n) {
      V v = load(g + c, n);
      return w ? v * load(w + c, n) : v;
    };
    Sum<T> inverse = inverse_rms(x, a.cols, a.eps);
    V scale = set1(inverse);
    if (a.dx) {
      T* dx = static_cast<T*>(a.dx) + r * a.dx_stride;
      auto along =
          sum_row<T>(a.cols, [&](int64_t c, int n) { return scaled(c, n) * load(x + c, n); });
      V back = set1(along * inverse * inverse / Sum<T>(a.cols));
      for_lanes_of<T>(a.cols, [&](int64_t c, int n) {
        store(dx + c, (scaled(c, n) - load(x + c, n) * back) * scale, n);
      });
    }
    if (sums)
      for_lanes_of<T>(a.cols, [&](int64_t c, int n) {
        V v = load(g + c, n) * (load(x + c, n) * scale);
        store(sums + c, r == first ? v : v + load(sums + c, n), n);
      });
  }
}

}  // namespace

void rms_norm(const RmsNormArgs& a, int64_t begin, int64_t end) {
  visit_two(a.dtype, a.w_dtype, [&](auto t, auto w) {
    rows<typename decltype(t)::type, typename decltype(w)::type>(a, begin, end);
  });
}

void rms_norm_backward(const RmsNormBackwardArgs& a, int64_t begin, int64_t end) {
  visit_two(a.dtype, a.w_dtype, [&](auto t, auto w) {
    for (int64_t block = begin; block < end; ++block)
      rows_backward<typename decltype(t)::type, typename decltype(w)::type>(a, block);
  });
}

HONED_END_LEVEL
