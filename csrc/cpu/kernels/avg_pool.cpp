// avg_pool: means of windows, and gradients spread over them.
#include "ops/avg_pool.h"

#include "cpu/kernels/pool_rows.h"

HONED_BEGIN_LEVEL

namespace {

// Elements of a window along one dimension, as the divisor counts them.
HONED_INLINE int64_t length_of(const PoolArgs& a, const PoolAxis& axis, int64_t o) {
  int64_t begin = o * axis.stride - axis.padding;
  int64_t end = least(begin + axis.kernel, axis.in + axis.padding);
  return a.include_padding ? end - begin : least(end, axis.in) - most(begin, 0);
}
HONED_INLINE int64_t size_of(const PoolArgs& a, int64_t row, int64_t o) {
  return a.divisor ? a.divisor : length_of(a, a.h, row) * length_of(a, a.w, o);
}

// Sizes of the windows of outputs o to o + n of a row.
template <class T>
HONED_INLINE Vec<T> sizes(const PoolArgs& a, int64_t row, int64_t o, int n) {
  // Windows are cut at the ends of a row alone: between two that are whole, all are.
  if (a.divisor ||
      (length_of(a, a.w, o) == a.w.kernel && length_of(a, a.w, o + n - 1) == a.w.kernel))
    return set1(Sum<T>(size_of(a, row, o)));
  alignas(64) Sum<T> lanes[kLanesOf<T>];
  for (int i = 0; i < kLanesOf<T>; ++i)
    lanes[i] = i < n ? Sum<T>(size_of(a, row, o + i)) : Sum<T>(1);
  return load(lanes);
}

template <class T>
void pixels_row(const PoolArgs& a, int64_t item) {
  constexpr int kStep = kLanesOf<T>;
  int64_t row = item % a.h.out;
  Range rows = taps_inside(a.h, row);
  const T* image = static_cast<const T*>(a.from) + item / a.h.out * a.h.in * a.w.in * a.channels;
  for (int64_t o = 0; o < a.w.out; ++o) {
    Range columns = taps_inside(a.w, o);
    int64_t left = o * a.w.stride - a.w.padding;
    Vec<T> size = set1(Sum<T>(size_of(a, row, o)));
    T* y = static_cast<T*>(a.to) + (item * a.w.out + o) * a.channels;
    for_channels<T>(0, a.channels, [&](auto side, int64_t c, int n) {
      constexpr int kSide = decltype(side)::count;
      Vec<T> sums[kSide];
      for (int u = 0; u < kSide; ++u) sums[u] = Vec<T>{};
      for (int64_t kh = rows.begin; kh < rows.end; ++kh) {
        int64_t pixel = (row * a.h.stride - a.h.padding + kh) * a.w.in + left;
        const T* x = image + pixel * a.channels + c;
        for (int64_t kw = columns.begin; kw < columns.end; ++kw)
          for (int u = 0; u < kSide; ++u)
            sums[u] = sums[u] + load(x + kw * a.channels + u * kStep, n);
      }
      for (int u = 0; u < kSide; ++u) store(y + c + u * kStep, sums[u] / size, n);
    });
  }
}

template <class T>
void row_backward(const PoolArgs& a, int64_t item) {
  const T* g = static_cast<const T*>(a.from);
  spread_row<T>(a, item, [&](int64_t row, int64_t o, int n, int64_t, int64_t) {
    return load(g + row * a.w.out + o, n) / sizes<T>(a, row % a.h.out, o, n);
  });
}

template <class T>
void pixels_backward(const PoolArgs& a, int64_t item) {
  constexpr int kStep = kLanesOf<T>;
  const T* g = static_cast<const T*>(a.from);
  int64_t image = item / a.h.in, i = item % a.h.in;
  for (int64_t j = 0; j < a.w.in; ++j) {
    T* dx = static_cast<T*>(a.to) + (item * a.w.in + j) * a.channels;
    for_channels<T>(0, a.channels, [&](auto side, int64_t c, int n) {
      constexpr int kSide = decltype(side)::count;
      Vec<T> sums[kSide];
      for (int u = 0; u < kSide; ++u) sums[u] = Vec<T>{};
      for (int64_t kh = 0; kh < a.h.kernel; ++kh) {
        int64_t row = output_of(a.h, i, kh);
        if (row < 0) continue;
        for (int64_t kw = 0; kw < a.w.kernel; ++kw) {
          int64_t column = output_of(a.w, j, kw);
          if (column < 0) continue;
          const T* from = g + ((image * a.h.out + row) * a.w.out + column) * a.channels + c;
          Vec<T> size = set1(Sum<T>(size_of(a, row, column)));
          for (int u = 0; u < kSide; ++u) sums[u] = sums[u] + load(from + u * kStep, n) / size;
        }
      }
      for (int u = 0; u < kSide; ++u) store(dx + c + u * kStep, sums[u], n);
    });
  }
}

}  // namespace

void avg_pool(const PoolArgs& a, int64_t begin, int64_t end) {
  visit_real(a.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    for (int64_t i = begin; i < end; ++i)
      if (a.channels_last)
        pixels_row<T>(a, i);
      else
        pool_row<T>(
            a, i, 0, [](Vec<T> v, Vec<T> before) { return before + v; },
            [&](Vec<T> v, int64_t o, int n) { return v / sizes<T>(a, i % a.h.out, o, n); });
  });
}

void avg_pool_backward(const PoolArgs& a, int64_t begin, int64_t end) {
  visit_real(a.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    for (int64_t i = begin; i < end; ++i)
      a.channels_last ? pixels_backward<T>(a, i) : row_backward<T>(a, i);
  });
}

HONED_END_LEVEL
