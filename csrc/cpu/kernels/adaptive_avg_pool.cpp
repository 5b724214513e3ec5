// adaptive_avg_pool: means over rectangles that cover the input, and gradients spread over them.
#include "ops/adaptive_avg_pool.h"

#include "cpu/kernels/pool_rows.h"
#include "cpu/kernels/row_sums.h"

HONED_BEGIN_LEVEL

namespace {

// The elements of output o; with the sizes exchanged, the outputs of element o.
HONED_INLINE Range window(int64_t in, int64_t out, int64_t o) {
  return {o * in / out, ((o + 1) * in + out - 1) / out};
}
HONED_INLINE Range window(const PoolAxis& a, int64_t o) { return window(a.in, a.out, o); }
HONED_INLINE Range outputs(const PoolAxis& a, int64_t i) { return window(a.out, a.in, i); }
HONED_INLINE int64_t length(Range r) { return r.end - r.begin; }

template <class T>
void plane(const PoolArgs& a, int64_t item) {
  const T* x = static_cast<const T*>(a.from) + item * a.h.in * a.w.in;
  T* y = static_cast<T*>(a.to) + item * a.h.out * a.w.out;
  auto part = [&](const T* from, int64_t count) {
    return sum_row<T>(count, [&](int64_t i, int n) { return load(from + i, n); });
  };
  auto put = [](T* to, Sum<T> value) { store(to, set1(value), 1); };
  if (a.w.out == 1 && a.h.out == 1)
    return put(y, part(x, a.h.in * a.w.in) / Sum<T>(a.h.in * a.w.in));
  for (int64_t o = 0; o < a.h.out; ++o) {
    Range rows = window(a.h, o);
    for (int64_t p = 0; p < a.w.out; ++p) {
      Range columns = window(a.w, p);
      Sum<T> sum = 0;
      for (int64_t i = rows.begin; i < rows.end; ++i)
        sum += part(x + i * a.w.in + columns.begin, length(columns));
      put(y + o * a.w.out + p, sum / Sum<T>(length(rows) * length(columns)));
    }
  }
}

template <class T>
void plane_backward(const PoolArgs& a, int64_t item) {
  const T* g = static_cast<const T*>(a.from) + item * a.h.out * a.w.out;
  T* dx = static_cast<T*>(a.to) + item * a.h.in * a.w.in;
  alignas(64) Sum<T> sums[kRow + kLanesOf<T>];
  for (int64_t i = 0; i < a.h.in; ++i) {
    Range rows = outputs(a.h, i);
    for (int64_t j = 0; j < a.w.in; j += kRow) {
      int64_t n = least(kRow, a.w.in - j);
      for_lanes_of<T>(n, [&](int64_t c, int) { store(sums + c, Vec<T>{}); });
      for (int64_t p = outputs(a.w, j).begin; p < outputs(a.w, j + n - 1).end; ++p) {
        Range columns = window(a.w, p);
        Sum<T> of_column = 0;
        for (int64_t o = rows.begin; o < rows.end; ++o)
          of_column +=
              scalar(g[o * a.w.out + p]) / Sum<T>(length(window(a.h, o)) * length(columns));
        int64_t from = most(columns.begin - j, 0), until = least(columns.end - j, n);
        for_lanes_of<T>(until - from, [&](int64_t c, int m) {
          Sum<T>* to = sums + from + c;
          store(to, load(to, m) + set1(of_column), m);
        });
      }
      for_lanes_of<T>(n,
                      [&](int64_t c, int m) { store(dx + i * a.w.in + j + c, load(sums + c), m); });
    }
  }
}

// A row of the tensor that is written, and a piece of its channels.
struct Item {
  int64_t image, row, first, last;
};
HONED_INLINE Item item_of(const PoolArgs& a, int64_t rows, int64_t item) {
  int64_t pieces = (a.channels + kPoolChannels - 1) / kPoolChannels;
  int64_t first = item % pieces * kPoolChannels, row = item / pieces;
  return {row / rows, row % rows, first, least(first + kPoolChannels, a.channels)};
}

// Sums of rows are added: of a large image the error grows with its sides, not with its area.
template <class T>
void pixels(const PoolArgs& a, int64_t item) {
  constexpr int kStep = kLanesOf<T>;
  Item at = item_of(a, a.h.out, item);
  Range rows = window(a.h, at.row);
  for (int64_t p = 0; p < a.w.out; ++p) {
    Range columns = window(a.w, p);
    Sum<T> size = Sum<T>(length(rows) * length(columns));
    T* y = static_cast<T*>(a.to) + ((at.image * a.h.out + at.row) * a.w.out + p) * a.channels;
    for_channels<T>(at.first, at.last, [&](auto side, int64_t c, int n) {
      constexpr int kSide = decltype(side)::count;
      Vec<T> sums[kSide];
      for (int u = 0; u < kSide; ++u) sums[u] = Vec<T>{};
      for (int64_t i = rows.begin; i < rows.end; ++i) {
        int64_t row = (at.image * a.h.in + i) * a.w.in;
        Vec<T> of_row[kSide];
        for (int u = 0; u < kSide; ++u) of_row[u] = Vec<T>{};
        for (int64_t j = columns.begin; j < columns.end; ++j) {
          const T* x = static_cast<const T*>(a.from) + (row + j) * a.channels + c;
          for (int u = 0; u < kSide; ++u) of_row[u] = of_row[u] + load(x + u * kStep, n);
        }
        for (int u = 0; u < kSide; ++u) sums[u] = sums[u] + of_row[u];
      }
      for (int u = 0; u < kSide; ++u) store(y + c + u * kStep, sums[u] / set1(size), n);
    });
  }
}

template <class T>
void pixels_backward(const PoolArgs& a, int64_t item) {
  constexpr int kStep = kLanesOf<T>;
  Item at = item_of(a, a.h.in, item);
  Range rows = outputs(a.h, at.row);
  for (int64_t j = 0; j < a.w.in; ++j) {
    Range columns = outputs(a.w, j);
    T* dx = static_cast<T*>(a.to) + ((at.image * a.h.in + at.row) * a.w.in + j) * a.channels;
    for_channels<T>(at.first, at.last, [&](auto side, int64_t c, int n) {
      constexpr int kSide = decltype(side)::count;
      Vec<T> sums[kSide];
      for (int u = 0; u < kSide; ++u) sums[u] = Vec<T>{};
      for (int64_t o = rows.begin; o < rows.end; ++o)
        for (int64_t p = columns.begin; p < columns.end; ++p) {
          Vec<T> size = set1(Sum<T>(length(window(a.h, o)) * length(window(a.w, p))));
          int64_t pixel = (at.image * a.h.out + o) * a.w.out + p;
          const T* g = static_cast<const T*>(a.from) + pixel * a.channels + c;
          for (int u = 0; u < kSide; ++u) sums[u] = sums[u] + load(g + u * kStep, n) / size;
        }
      for (int u = 0; u < kSide; ++u) store(dx + c + u * kStep, sums[u], n);
    });
  }
}

}  // namespace

void adaptive_avg_pool(const PoolArgs& a, int64_t begin, int64_t end) {
  visit_real(a.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    for (int64_t i = begin; i < end; ++i) a.channels_last ? pixels<T>(a, i) : plane<T>(a, i);
  });
}

void adaptive_avg_pool_backward(const PoolArgs& a, int64_t begin, int64_t end) {
  visit_real(a.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    for (int64_t i = begin; i < end; ++i)
      a.channels_last ? pixels_backward<T>(a, i) : plane_backward<T>(a, i);
  });
}

HONED_END_LEVEL
