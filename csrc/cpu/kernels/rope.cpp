// Rotation of pairs, (j, j + R/2) or (2j, 2j + 1), by an angle a position.
#include "ops/rope.h"

#include "cpu/visit.h"

HONED_BEGIN_LEVEL

namespace {

template <class T>
HONED_INLINE void rotate_halves(const T* x, T* y, const float* cos, const float* sin,
                                int64_t half) {
  for_lanes(half, [&](int64_t j, int n) {
    vf c = load(cos + j, n), s = load(sin + j, n);
    vf a = load(x + j, n), b = load(x + half + j, n);
    store(y + j, a * c - b * s, n);
    store(y + half + j, fmadd(b, c, a * s), n);
  });
}

// The level's vectors have no shuffles: pairs go through a small buffer, whose loop the compiler
// turns into shuffles where it pays.
template <class T>
HONED_INLINE void rotate_neighbours(const T* x, T* y, const float* cos, const float* sin,
                                    int64_t half) {
  float pairs[2 * kLanes];
  for_lanes(half, [&](int64_t j, int n) {
    int second = n == kLanes ? kLanes : 2 * n > kLanes ? 2 * n - kLanes : 0;
    int first = 2 * n - second;
    store(pairs, load(x + 2 * j, first), first);
    if (second) store(pairs + kLanes, load(x + 2 * j + kLanes, second), second);
    for (int i = 0; i < n; ++i) {
      float a = pairs[2 * i], b = pairs[2 * i + 1], c = cos[j + i], s = sin[j + i];
      pairs[2 * i] = a * c - b * s;
      pairs[2 * i + 1] = b * c + a * s;
    }
    store(y + 2 * j, load(pairs, first), first);
    if (second) store(y + 2 * j + kLanes, load(pairs + kLanes, second), second);
  });
}

template <class T>
void items(const RopeArgs& a, int64_t begin, int64_t end) {
  int64_t half = a.rotary_dim / 2;
  for (int64_t i = begin; i < end; ++i) {
    int64_t b = i / a.time, t = i % a.time;
    int64_t p = a.positions ? a.positions[b * a.positions_stride + t] : a.first_position + t;
    const float* cos = a.cos + p * a.table_stride;
    const float* sin = a.sin + p * a.table_stride;
    const T* x = static_cast<const T*>(a.x) + b * a.x_stride[0] + t * a.x_stride[1];
    T* y = static_cast<T*>(a.y) + b * a.y_stride[0] + t * a.y_stride[1];
    for (int64_t h = 0; h < a.heads; ++h, x += a.x_stride[2], y += a.y_stride[2]) {
      if (a.interleaved)
        rotate_neighbours(x, y, cos, sin, half);
      else
        rotate_halves(x, y, cos, sin, half);
      if (x != y && a.rotary_dim < a.head_dim)
        __builtin_memcpy(y + a.rotary_dim, x + a.rotary_dim,
                         size_t(a.head_dim - a.rotary_dim) * sizeof(T));
    }
  }
}

}  // namespace

void rope(const RopeArgs& a, int64_t begin, int64_t end) {
  visit_float(a.dtype, [&](auto t) { items<typename decltype(t)::type>(a, begin, end); });
}

HONED_END_LEVEL
