// Rotation of pairs, (j, j + R/2) or (2j, 2j + 1), by an angle a position.
#include "ops/rope.h"

#include "cpu/simd/vec_f64.h"
#include "cpu/visit.h"

HONED_BEGIN_LEVEL

namespace {

// n values of a table, in the vectors of T
template <class T, class C>
HONED_INLINE Vec<T> angles(const C* table, int n) {
  if constexpr (sizeof(Sum<T>) == sizeof(C)) {
    return load(table, n);
  } else {
    Vec<T> v = {};
    for (int i = 0; i < n; ++i) v[i] = table[i];
    return v;
  }
}

template <class T, class C>
HONED_INLINE void rotate_halves(const T* x, T* y, const C* cos, const C* sin, Sum<T> sign,
                                int64_t half) {
  for_lanes_of<T>(half, [&](int64_t j, int n) {
    Vec<T> c = angles<T>(cos + j, n), s = angles<T>(sin + j, n) * set1(sign);
    Vec<T> a = load(x + j, n), b = load(x + half + j, n);
    store(y + j, a * c - b * s, n);
    store(y + half + j, fmadd(b, c, a * s), n);
  });
}

// The level's vectors have no shuffles: pairs go through a small buffer, whose loop the compiler
// turns into shuffles where it pays.
template <class T, class C>
HONED_INLINE void rotate_neighbours(const T* x, T* y, const C* cos, const C* sin, Sum<T> sign,
                                    int64_t half) {
  if constexpr (sizeof(T) == 8) {
    for (int64_t j = 0; j < half; ++j) {
      T a = x[2 * j], b = x[2 * j + 1], c = cos[j], s = sin[j] * sign;
      y[2 * j] = a * c - b * s;
      y[2 * j + 1] = b * c + a * s;
    }
  } else {
    float pairs[2 * kLanes];
    for_lanes(half, [&](int64_t j, int n) {
      int second = n == kLanes ? kLanes : 2 * n > kLanes ? 2 * n - kLanes : 0;
      int first = 2 * n - second;
      store(pairs, load(x + 2 * j, first), first);
      if (second) store(pairs + kLanes, load(x + 2 * j + kLanes, second), second);
      for (int i = 0; i < n; ++i) {
        float a = pairs[2 * i], b = pairs[2 * i + 1], c = cos[j + i], s = sin[j + i] * sign;
        pairs[2 * i] = a * c - b * s;
        pairs[2 * i + 1] = b * c + a * s;
      }
      store(y + 2 * j, load(pairs, first), first);
      if (second) store(y + 2 * j + kLanes, load(pairs + kLanes, second), second);
    });
  }
}

template <class T, class C>
void items(const RopeArgs& a, int64_t begin, int64_t end) {
  int64_t half = a.rotary_dim / 2;
  Sum<T> sign = a.inverse ? Sum<T>(-1) : Sum<T>(1);
  for (int64_t i = begin; i < end; ++i) {
    int64_t b = i / a.time, t = i % a.time;
    int64_t p = a.positions ? a.positions[b * a.positions_stride + t] : a.first_position + t;
    const C* cos = static_cast<const C*>(a.cos) + p * a.table_stride;
    const C* sin = static_cast<const C*>(a.sin) + p * a.table_stride;
    const T* x = static_cast<const T*>(a.x) + b * a.x_stride[0] + t * a.x_stride[1];
    T* y = static_cast<T*>(a.y) + b * a.y_stride[0] + t * a.y_stride[1];
    for (int64_t h = 0; h < a.heads; ++h, x += a.x_stride[2], y += a.y_stride[2]) {
      if (a.interleaved)
        rotate_neighbours(x, y, cos, sin, sign, half);
      else
        rotate_halves(x, y, cos, sin, sign, half);
      if (x != y && a.rotary_dim < a.head_dim)
        __builtin_memcpy(y + a.rotary_dim, x + a.rotary_dim,
                         size_t(a.head_dim - a.rotary_dim) * sizeof(T));
    }
  }
}

}  // namespace

void rope(const RopeArgs& a, int64_t begin, int64_t end) {
  visit_real(a.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    if constexpr (sizeof(T) == 8) {
      if (a.wide_tables) return items<T, double>(a, begin, end);
    }
    items<T, float>(a, begin, end);
  });
}

HONED_END_LEVEL
