// Rows of planes under windows with a stride. A row is laid out by phases, the positions p with equal
// p mod stride side by side: what neighbouring outputs take at one tap is then contiguous.
#pragma once
#include "cpu/simd/vec_f64.h"
#include "cpu/visit.h"
#include "ops/_pool.h"

HONED_BEGIN_LEVEL
namespace {

constexpr int64_t kRow = 1024;   // elements of a row in the first-level cache
constexpr int64_t kTaps = 64;    // taps along a row that are taken at once
constexpr int64_t kVectors = 4;  // of channels that are summed side by side

HONED_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
HONED_INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
HONED_INLINE int64_t ceil_div(int64_t a, int64_t b) {
  return a > 0 ? (a + b - 1) / b : 0;
}  // a < 0: 0

// The even and the odd lanes of two vectors, and the way back.
HONED_INLINE void split(vf a, vf b, vf* even, vf* odd) {
#if defined(__AVX512F__)
  *even = __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  *odd = __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
#elif defined(__AVX2__)
  *even = __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14);
  *odd = __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
#else
  *even = __builtin_shufflevector(a, b, 0, 2, 4, 6);
  *odd = __builtin_shufflevector(a, b, 1, 3, 5, 7);
#endif
}
HONED_INLINE void join(vf even, vf odd, vf* a, vf* b) {
#if defined(__AVX512F__)
  *a = __builtin_shufflevector(even, odd, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  *b = __builtin_shufflevector(even, odd, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15,
                               31);
#elif defined(__AVX2__)
  *a = __builtin_shufflevector(even, odd, 0, 8, 1, 9, 2, 10, 3, 11);
  *b = __builtin_shufflevector(even, odd, 4, 12, 5, 13, 6, 14, 7, 15);
#else
  *a = __builtin_shufflevector(even, odd, 0, 4, 1, 5);
  *b = __builtin_shufflevector(even, odd, 2, 6, 3, 7);
#endif
}
HONED_INLINE void split(vd a, vd b, vd* even, vd* odd) {
  for (int i = 0; i < kDoubles; ++i) {
    int at = 2 * i;
    (*even)[i] = at < kDoubles ? a[at] : b[at - kDoubles];
    (*odd)[i] = at < kDoubles ? a[at + 1] : b[at + 1 - kDoubles];
  }
}
HONED_INLINE void join(vd even, vd odd, vd* a, vd* b) {
  for (int i = 0; i < kDoubles / 2; ++i) {
    (*a)[2 * i] = even[i];
    (*a)[2 * i + 1] = odd[i];
    (*b)[2 * i] = even[kDoubles / 2 + i];
    (*b)[2 * i + 1] = odd[kDoubles / 2 + i];
  }
}

struct Range {
  int64_t begin, end;
};
// The taps of output o that lie inside the input; the first one that does not lie before it where none does.
HONED_INLINE Range taps_inside(const PoolAxis& a, int64_t o) {
  int64_t start = o * a.stride - a.padding;
  int64_t begin = start < 0 ? ceil_div(-start, a.dilation) : 0;
  return {begin, most(begin, least(a.kernel, ceil_div(a.in - start, a.dilation)))};
}
// The outputs that take position p (counted from the start of the padding) at distance `off` and later ones.
HONED_INLINE int64_t first_output(const PoolAxis& a, int64_t p, int64_t off) {
  return ceil_div(p - off, a.stride);
}
// The output that takes element i at tap k, or -1.
HONED_INLINE int64_t output_of(const PoolAxis& a, int64_t i, int64_t k) {
  int64_t p = i + a.padding - k * a.dilation;
  if (p < 0) return -1;
  int64_t o = p / a.stride;
  return o < a.out && o * a.stride == p ? o : -1;
}

// What `outs` outputs from o on take at `taps` taps from t on: vectors of neighbouring outputs at at[tap - t].
// Lanes beyond the outputs hold anything.
template <class T>
struct RowPiece {
  static constexpr int kStep = kLanesOf<T>;
  alignas(64) Sum<T> linear[kRow + 4 * kStep];
  alignas(64) Sum<T> phases[2 * kRow + 4 * kStep];
  const Sum<T>* at[kTaps];

  static int64_t taps(const PoolAxis& a) {
    return least(least(a.kernel, kTaps), 1 + (kRow / 2 - 1) / a.dilation);
  }
  static int64_t outs(const PoolAxis& a) {
    return 1 + (kRow - (taps(a) - 1) * a.dilation - 1) / a.stride;
  }

  // f(i, n): elements i to i + n of the row; `outside`: what lies in the padding.
  template <class F>
  HONED_INLINE void fill(const PoolAxis& a, int64_t o, int64_t outs, int64_t t, int64_t taps,
                         Sum<T> outside, F&& f) {
    int64_t s = a.stride, span = (taps - 1) * a.dilation + 1, count = (outs - 1) * s + span;
    int64_t first = o * s - a.padding + t * a.dilation;
    int64_t from = least(most(-first, 0), count), until = most(from, least(count, a.in - first));
    for (int64_t j = 0; j < from; ++j) linear[j] = outside;
    for_lanes_of<T>(until - from,
                    [&](int64_t i, int n) { store(linear + from + i, f(first + from + i, n)); });
    for (int64_t j = until; j < count; ++j) linear[j] = outside;
    if (s == 1) {
      for (int64_t k = 0; k < taps; ++k) at[k] = linear + k * a.dilation;
      return;
    }
    int64_t length = outs + (span - 1) / s;
    if (s == 2) {
      length = (length + kStep - 1) / kStep * kStep;
      for (int64_t i = 0; i < length; i += kStep) {
        Vec<T> even, odd;
        split(load(linear + 2 * i), load(linear + 2 * i + kStep), &even, &odd);
        store(phases + i, even);
        store(phases + length + i, odd);
      }
    } else {
      for (int64_t r = 0; r < least(s, span); ++r)
        for (int64_t i = 0, p = r; i < length && p < count; ++i, p += s)
          phases[r * length + i] = linear[p];
    }
    for (int64_t k = 0; k < taps; ++k) {
      int64_t off = k * a.dilation;
      at[k] = phases + off % s * length + off / s;
    }
  }
};

// Rows of results: combine(tap, so far) over the taps of each window, then finish(value, output, n).
template <class T, class Combine, class Finish>
HONED_INLINE void pool_row(const PoolArgs& a, int64_t item, Sum<T> identity, Combine&& combine,
                           Finish&& finish) {
  RowPiece<T> piece;
  alignas(64) Sum<T> so_far[kRow + kLanesOf<T>];
  Range rows = taps_inside(a.h, item % a.h.out);
  int64_t row = item % a.h.out * a.h.stride - a.h.padding + rows.begin * a.h.dilation;
  const T* x = static_cast<const T*>(a.from) + (item / a.h.out * a.h.in + row) * a.w.in;
  T* y = static_cast<T*>(a.to) + item * a.w.out;
  int64_t taps = piece.taps(a.w), outs = piece.outs(a.w), down = a.h.dilation * a.w.in;
  for (int64_t o = 0; o < a.w.out; o += outs) {
    int64_t n = least(outs, a.w.out - o);
    for (int64_t t = 0; t < a.w.kernel; t += taps) {
      int64_t count = least(taps, a.w.kernel - t);
      bool ends = t + count == a.w.kernel;
      piece.fill(a.w, o, n, t, count, identity, [&](int64_t i, int m) {
        if (rows.begin == rows.end) return set1(identity);
        const T* p = x + i;
        Vec<T> v = load(p, m);
        for (int64_t k = rows.begin + 1; k < rows.end; ++k) v = combine(load(p += down, m), v);
        return v;
      });
      for_lanes_of<T>(n, [&](int64_t i, int m) {
        Vec<T> v = t ? load(so_far + i) : set1(identity);
        for (int64_t k = 0; k < count; ++k) v = combine(load(piece.at[k] + i), v);
        if (ends)
          store(y + o + i, finish(v, o + i, m), m);
        else
          store(so_far + i, v);
      });
    }
  }
}

// One row of a gradient of planes: the sum over windows of value(row of g, output, n, row's tap, tap), which is
// 0 in lanes beyond n.
template <class T, class Value>
HONED_INLINE void spread_row(const PoolArgs& a, int64_t item, Value&& value) {
  constexpr int kStep = kLanesOf<T>;
  constexpr int64_t kPhases = 8;  // with a longer stride element by element
  alignas(64) Sum<T> sums[kRow + (kPhases + 2) * kStep], linear[kRow + 4 * kStep];
  int64_t plane = item / a.h.in, i = item % a.h.in, s = a.w.stride;
  bool phased = s <= kPhases;
  int64_t length = phased ? kRow / s : kRow, chunk = phased ? length * s : kRow;
  int64_t step = length + kStep;  // from one phase to the next
  T* dx = static_cast<T*>(a.to) + item * a.w.in;
  int64_t end = a.w.in + a.w.padding;
  for (int64_t p = phased ? a.w.padding / s * s : a.w.padding; p < end; p += chunk) {
    int64_t last = least(end, p + chunk);
    for (int64_t k = 0; k < (phased ? s * step : kRow); k += kStep)
      store(sums + k, set1(Sum<T>(0)));
    for (int64_t kh = 0; kh < a.h.kernel; ++kh) {
      int64_t row = output_of(a.h, i, kh);
      if (row < 0) continue;
      row += plane * a.h.out;
      for (int64_t kw = 0; kw < a.w.kernel; ++kw) {
        int64_t off = kw * a.w.dilation, lo = first_output(a.w, p, off);
        int64_t hi = least(a.w.out, first_output(a.w, last, off));
        if (phased) {
          Sum<T>* to = sums + off % s * step + off / s - p / s;
          for_lanes_of<T>(hi - lo, [&](int64_t j, int n) {
            store(to + lo + j, load(to + lo + j) + value(row, lo + j, n, kh, kw));
          });
        } else {
          for_lanes_of<T>(hi - lo, [&](int64_t j, int n) {
            alignas(64) Sum<T> lanes[kStep];
            store(lanes, value(row, lo + j, n, kh, kw));
            for (int l = 0; l < n; ++l) sums[off + (lo + j + l) * s - p] += lanes[l];
          });
        }
      }
    }
    const Sum<T>* from = sums;
    if (phased && s > 1) {
      from = linear;
      if (s == 2)
        for (int64_t k = 0; k < length; k += kStep) {
          Vec<T> one, two;
          join(load(sums + k), load(sums + step + k), &one, &two);
          store(linear + 2 * k, one);
          store(linear + 2 * k + kStep, two);
        }
      else
        for (int64_t r = 0; r < s; ++r)
          for (int64_t k = 0; k < length; ++k) linear[r + k * s] = sums[r * step + k];
    }
    int64_t first = most(p, a.w.padding);
    for_lanes_of<T>(last - first, [&](int64_t j, int n) {
      store(dx + first - a.w.padding + j, load(from + first - p + j), n);
    });
  }
}

// body(Tag of how many vectors stand side by side, first channel, channels of a vector).
template <int how_many>
struct Side {
  static constexpr int count = how_many;
};
template <class T, class F>
HONED_INLINE void for_channels(int64_t begin, int64_t end, F&& body) {
  constexpr int kStep = kLanesOf<T>;
  int64_t c = begin;
  for (; c + kVectors * kStep <= end; c += kVectors * kStep) body(Side<kVectors>{}, c, kStep);
  for (; c < end; c += kStep) body(Side<1>{}, c, int(least(kStep, end - c)));
}

}  // namespace
HONED_END_LEVEL
