// Rows of rms_norm and layer_norm (centered), forward and backward, with and without a sum before.
#pragma once
#include "cpu/kernels/row_sums.h"
#include "cpu/visit.h"
#include "ops/_norm.h"

HONED_BEGIN_LEVEL
namespace {

// What norms a row: n = (x - mean) scale.
template <class T>
struct Scaling {
  Sum<T> mean, scale;
};
template <class T, bool centered, class F>
HONED_INLINE Scaling<T> scaling(int64_t cols, double eps, F&& f) {
  Sum<T> mean = 0, squares;
  if constexpr (centered) {
    auto of = moments<T>(cols, f);
    mean = of.mean;
    squares = of.squares;
  } else {
    squares = sum_row<T>(cols, [&](int64_t c, int n) {
      Vec<T> v = f(c, n);
      return v * v;
    });
  }
  return {mean, Sum<T>(1) / square_root(squares / Sum<T>(cols) + Sum<T>(eps))};
}

template <class T, bool centered, bool adds>
void norm_rows(const NormArgs& a, int64_t begin, int64_t end) {
  const auto* w = static_cast<const Sum<T>*>(a.w);
  const auto* b = static_cast<const Sum<T>*>(a.b);
  for (int64_t r = begin; r < end; ++r) {
    const T* x = static_cast<const T*>(a.x) + r * a.x_stride;
    T* y = static_cast<T*>(a.y) + r * a.y_stride;
    if constexpr (adds) {
      const T* add = static_cast<const T*>(a.add) + r * a.add_stride;
      T* sum = static_cast<T*>(a.sum) + r * a.y_stride;
      for_lanes_of<T>(
          a.cols, [&](int64_t c, int n) { store(sum + c, load(x + c, n) + load(add + c, n), n); });
      x = sum;
    }
    auto by = scaling<T, centered>(a.cols, a.eps, [&](int64_t c, int n) { return load(x + c, n); });
    Vec<T> scale = set1(by.scale), mean = set1(by.mean);
    auto normed = [&](int64_t c, int n) {
      if constexpr (centered)
        return (load(x + c, n) - mean) * scale;
      else
        return load(x + c, n) * scale;
    };
    if (w && b)
      for_lanes_of<T>(a.cols, [&](int64_t c, int n) {
        store(y + c, fmadd(normed(c, n), load(w + c, n), load(b + c, n)), n);
      });
    else if (w)
      for_lanes_of<T>(a.cols,
                      [&](int64_t c, int n) { store(y + c, normed(c, n) * load(w + c, n), n); });
    else
      for_lanes_of<T>(a.cols, [&](int64_t c, int n) {
        Vec<T> v = normed(c, n);
        store(y + c, b ? v + load(b + c, n) : v, n);
      });
  }
}

template <bool centered, bool adds>
HONED_INLINE void norm(const NormArgs& a, int64_t begin, int64_t end) {
  visit_real(a.dtype,
             [&](auto t) { norm_rows<typename decltype(t)::type, centered, adds>(a, begin, end); });
}

// One block of rows: their dx, and sums over them for dw and db.
template <class T, bool centered>
void norm_block_backward(const NormBackwardArgs& a, int64_t block) {
  using V = Vec<T>;
  using S = Sum<T>;
  const S* w = static_cast<const S*>(a.w);
  S* w_sums = a.w_sums ? static_cast<S*>(a.w_sums) + block * a.cols : nullptr;
  S* b_sums = a.b_sums ? static_cast<S*>(a.b_sums) + block * a.cols : nullptr;
  S* const both[] = {w_sums, b_sums};  // no initializer_list: its functions are shared by levels
  for (S* sums : both)
    if (sums) for_lanes_of<T>(a.cols, [&](int64_t c, int n) { store(sums + c, set1(S(0)), n); });
  int64_t first = block * a.block_rows;
  int64_t last = first + a.block_rows < a.rows ? first + a.block_rows : a.rows;
  for (int64_t r = first; r < last; ++r) {
    const T* x = static_cast<const T*>(a.x) + r * a.x_stride;
    const T* g = static_cast<const T*>(a.g) + r * a.g_stride;
    const T* g_sum = a.g_sum ? static_cast<const T*>(a.g_sum) + r * a.g_sum_stride : nullptr;
    T* dx = a.dx ? static_cast<T*>(a.dx) + r * a.dx_stride : nullptr;
    auto weighted = [&](V v, int64_t c, int n) { return w ? v * load(w + c, n) : v; };
    auto by = scaling<T, centered>(a.cols, a.eps, [&](int64_t c, int n) { return load(x + c, n); });
    V scale = set1(by.scale), mean = set1(by.mean), back = scale, shift = scale;
    if (dx) {
      S sums[2];  // of g w and g w (x - mean)
      sum_rows<T, 2>(a.cols, sums, [&](int64_t c, int n) {
        V v = weighted(load(g + c, n), c, n);
        return Parts<T, 2>{{v, v * (load(x + c, n) - mean)}};
      });
      back = set1(sums[1] * by.scale * by.scale / S(a.cols));
      shift = set1(centered ? sums[0] / S(a.cols) : S(0));
    }
    for_lanes_of<T>(a.cols, [&](int64_t c, int n) {
      V v = load(g + c, n), d = load(x + c, n) - mean;
      if (w_sums) store(w_sums + c, fmadd(v, d * scale, load(w_sums + c, n)), n);
      if (b_sums) store(b_sums + c, v + load(b_sums + c, n), n);
      if (!dx) return;
      V out = (weighted(v, c, n) - shift - d * back) * scale;
      store(dx + c, g_sum ? out + load(g_sum + c, n) : out, n);
    });
  }
}

template <bool centered>
HONED_INLINE void norm_backward(const NormBackwardArgs& a, int64_t begin, int64_t end) {
  visit_real(a.dtype, [&](auto t) {
    for (int64_t block = begin; block < end; ++block)
      norm_block_backward<typename decltype(t)::type, centered>(a, block);
  });
}

}  // namespace
HONED_END_LEVEL
