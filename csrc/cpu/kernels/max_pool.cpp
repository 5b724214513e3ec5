// max_pool: largest elements, which tap they came from, and where the gradient goes.
#include "ops/max_pool.h"

#include "cpu/kernels/pool_rows.h"

HONED_BEGIN_LEVEL

namespace {

// The larger of an element and the largest before it; NaN where one is.
template <class V>
HONED_INLINE V larger(V v, V before) {
  return v != v ? v : vmax(v, before);
}
// What an element that takes the place of the largest brings, else what was there.
template <class V>
HONED_INLINE V where_taken(V v, V before, V brings, V stays) {
  return v > before ? brings : v != v ? brings : stays;
}

template <class T>
constexpr Sum<T> kLowest = -Sum<T>(__builtin_inff());

// Codes of n results from `at` on.
HONED_INLINE void put_codes(const PoolArgs& a, int64_t at, vf codes, int n) {
  if (a.h.kernel * a.w.kernel <= kSmallKernel) {
    store_bytes(static_cast<int8_t*>(a.codes) + at, to_int(codes), n);
  } else {
    alignas(64) int32_t lanes[kLanes];
    store_int(lanes, to_int(codes));
    __builtin_memcpy(static_cast<int32_t*>(a.codes) + at, lanes, size_t(n) * 4);
  }
}
HONED_INLINE void put_codes(const PoolArgs& a, int64_t at, vd codes, int n) {
  bool small = a.h.kernel * a.w.kernel <= kSmallKernel;
  for (int i = 0; i < n; ++i)
    if (small)
      static_cast<int8_t*>(a.codes)[at + i] = int8_t(codes[i]);
    else
      static_cast<int32_t*>(a.codes)[at + i] = int32_t(codes[i]);
}

// Codes and indices of the results (row, o + i along), i < n; `along` 0: all of output o.
template <class T>
HONED_INLINE void put_places(const PoolArgs& a, int64_t at, Vec<T> codes, int64_t row, int64_t o,
                             int along, int n) {
  if (a.codes) put_codes(a, at, codes, n);
  if (!a.indices) return;
  alignas(64) Sum<T> lanes[kLanesOf<T>];
  store(lanes, codes);
  for (int i = 0; i < n; ++i) {
    int64_t code = int64_t(lanes[i]);
    int64_t h = row * a.h.stride - a.h.padding + code / a.w.kernel * a.h.dilation;
    int64_t w = (o + i * along) * a.w.stride - a.w.padding + code % a.w.kernel * a.w.dilation;
    a.indices[at + i] = h * a.w.in + w;
  }
}

// A row of a plane and the places of its elements: taps in the order of rows, then columns.
template <class T>
void places_row(const PoolArgs& a, int64_t item) {
  RowPiece<T> piece;
  alignas(64) Sum<T> largest[kRow + kLanesOf<T>], codes[kRow + kLanesOf<T>];
  int64_t row = item % a.h.out;
  Range rows = taps_inside(a.h, row);
  const T* plane = static_cast<const T*>(a.from) + item / a.h.out * a.h.in * a.w.in;
  T* y = static_cast<T*>(a.to) + item * a.w.out;
  int64_t taps = piece.taps(a.w), outs = piece.outs(a.w);
  for (int64_t o = 0; o < a.w.out; o += outs) {
    int64_t n = least(outs, a.w.out - o), top = rows.begin * a.w.kernel;
    for_lanes_of<T>(n, [&](int64_t i, int) {
      store(largest + i, set1(kLowest<T>));
      store(codes + i, set1(Sum<T>(top)));
    });
    for (int64_t i = 0; i < n && (o + i) * a.w.stride < a.w.padding; ++i)
      codes[i] = Sum<T>(top + taps_inside(a.w, o + i).begin);
    for (int64_t kh = rows.begin; kh < rows.end; ++kh) {
      const T* x = plane + (row * a.h.stride - a.h.padding + kh * a.h.dilation) * a.w.in;
      for (int64_t t = 0; t < a.w.kernel; t += taps) {
        int64_t count = least(taps, a.w.kernel - t), code = kh * a.w.kernel + t;
        piece.fill(a.w, o, n, t, count, kLowest<T>,
                   [&](int64_t i, int m) { return load(x + i, m); });
        for_lanes_of<T>(n, [&](int64_t i, int) {
          Vec<T> top = load(largest + i), from = load(codes + i);
          for (int64_t k = 0; k < count; ++k) {
            Vec<T> v = load(piece.at[k] + i);
            from = where_taken(v, top, set1(Sum<T>(code + k)), from);
            top = larger(v, top);
          }
          store(largest + i, top);
          store(codes + i, from);
        });
      }
    }
    for_lanes_of<T>(n, [&](int64_t i, int m) {
      store(y + o + i, load(largest + i), m);
      put_places<T>(a, item * a.w.out + o + i, load(codes + i), row, o + i, 1, m);
    });
  }
}

template <class T, bool places>
void pixels_row(const PoolArgs& a, int64_t item) {
  constexpr int kStep = kLanesOf<T>;
  int64_t row = item % a.h.out, channels = a.channels;
  Range rows = taps_inside(a.h, row);
  const T* image = static_cast<const T*>(a.from) + item / a.h.out * a.h.in * a.w.in * channels;
  int64_t top = row * a.h.stride - a.h.padding;
  for (int64_t o = 0; o < a.w.out; ++o) {
    Range columns = taps_inside(a.w, o);
    int64_t left = o * a.w.stride - a.w.padding, at = (item * a.w.out + o) * channels;
    for_channels<T>(0, channels, [&](auto side, int64_t c, int n) {
      constexpr int kSide = decltype(side)::count;
      Vec<T> largest[kSide], codes[kSide];
      for (int u = 0; u < kSide; ++u) {
        largest[u] = set1(kLowest<T>);
        codes[u] = set1(Sum<T>(rows.begin * a.w.kernel + columns.begin));
      }
      for (int64_t kh = rows.begin; kh < rows.end; ++kh)
        for (int64_t kw = columns.begin; kw < columns.end; ++kw) {
          int64_t pixel = (top + kh * a.h.dilation) * a.w.in + left + kw * a.w.dilation;
          const T* x = image + pixel * channels + c;
          Vec<T> code = set1(Sum<T>(kh * a.w.kernel + kw));
          for (int u = 0; u < kSide; ++u) {
            Vec<T> v = load(x + u * kStep, n);
            if (places) codes[u] = where_taken(v, largest[u], code, codes[u]);
            largest[u] = larger(v, largest[u]);
          }
        }
      for (int u = 0; u < kSide; ++u) {
        int64_t to = at + c + u * kStep;
        store(static_cast<T*>(a.to) + to, largest[u], n);
        if (places) put_places<T>(a, to, codes[u], row, o, 0, n);
      }
    });
  }
}

// The elements of g whose code is k.
template <class T, class C>
HONED_INLINE Vec<T> of_code(const T* g, const C* codes, int64_t k, int n) {
  alignas(64) Sum<T> lanes[kLanesOf<T>] = {};
  if (n == kLanesOf<T>)
    for (int i = 0; i < kLanesOf<T>; ++i) lanes[i] = Sum<T>(codes[i]);
  else
    for (int i = 0; i < n; ++i) lanes[i] = Sum<T>(codes[i]);
  Vec<T> code = load(lanes);
  return code == set1(Sum<T>(k)) ? load(g, n) : Vec<T>{};
}

template <class T, class C>
void row_backward(const PoolArgs& a, int64_t item) {
  const T* g = static_cast<const T*>(a.from);
  const C* codes = static_cast<const C*>(a.codes);
  spread_row<T>(a, item, [&](int64_t row, int64_t o, int n, int64_t kh, int64_t kw) {
    int64_t at = row * a.w.out + o;
    return of_code<T>(g + at, codes + at, kh * a.w.kernel + kw, n);
  });
}

template <class T, class C>
void pixels_backward(const PoolArgs& a, int64_t item) {
  constexpr int kStep = kLanesOf<T>;
  const T* g = static_cast<const T*>(a.from);
  const C* codes = static_cast<const C*>(a.codes);
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
          int64_t at = ((image * a.h.out + row) * a.w.out + column) * a.channels + c;
          for (int u = 0; u < kSide; ++u) {
            int64_t from = at + u * kStep;
            sums[u] = sums[u] + of_code<T>(g + from, codes + from, kh * a.w.kernel + kw, n);
          }
        }
      }
      for (int u = 0; u < kSide; ++u) store(dx + c + u * kStep, sums[u], n);
    });
  }
}

template <class T, class C>
void rows_backward(const PoolArgs& a, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i)
    if (a.channels_last)
      pixels_backward<T, C>(a, i);
    else
      row_backward<T, C>(a, i);
}

}  // namespace

void max_pool(const PoolArgs& a, int64_t begin, int64_t end) {
  visit_real(a.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    bool places = a.codes || a.indices;
    for (int64_t i = begin; i < end; ++i)
      if (a.channels_last)
        places ? pixels_row<T, true>(a, i) : pixels_row<T, false>(a, i);
      else if (places)
        places_row<T>(a, i);
      else
        pool_row<T>(
            a, i, kLowest<T>, [](Vec<T> v, Vec<T> before) { return larger(v, before); },
            [](Vec<T> v, int64_t, int) { return v; });
  });
}

void max_pool_backward(const PoolArgs& a, int64_t begin, int64_t end) {
  visit_real(a.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    if (a.h.kernel * a.w.kernel <= kSmallKernel)
      rows_backward<T, int8_t>(a, begin, end);
    else
      rows_backward<T, int32_t>(a, begin, end);
  });
}

HONED_END_LEVEL
