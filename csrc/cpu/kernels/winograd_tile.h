// One dimension of Winograd's transforms.
//
// Interpolation at 0, 1, -1, infinity for 2 outputs, at 0, +-sqrt(1/2), +-sqrt(2), infinity for 4: among
// cheap points these round least (see ops/_winograd.h).
#pragma once
#include "cpu/simd/vec_f64.h"
#include "ops/_winograd.h"

HONED_BEGIN_LEVEL
namespace {

constexpr double kRoot2 = 1.4142135623730950488, kHalfRoot2 = kRoot2 / 2;

// B^T d
HONED_INLINE void input_line(const vf (&d)[4], vf (&v)[4]) {
  v[0] = d[0] - d[2];
  v[1] = d[1] + d[2];
  v[2] = d[2] - d[1];
  v[3] = d[3] - d[1];
}
HONED_INLINE void input_line(const vf (&d)[6], vf (&v)[6]) {
  const vf two = set1(-2.0f), half = set1(-0.5f), both = set1(-2.5f);
  const vf low = set1(float(kHalfRoot2)), high = set1(float(kRoot2));
  vf even = fmadd(two, d[2], d[4]), odd = fmadd(two, d[1], d[3]) * low;
  v[1] = even + odd;
  v[2] = even - odd;
  even = fmadd(half, d[2], d[4]), odd = fmadd(half, d[1], d[3]) * high;
  v[3] = even + odd;
  v[4] = even - odd;
  v[0] = fmadd(both, d[2], d[0] + d[4]);
  v[5] = fmadd(both, d[3], d[1] + d[5]);
}

// A^T m
HONED_INLINE void output_line(const vf (&m)[4], vf (&y)[2]) {
  y[0] = m[0] + (m[1] + m[2]);
  y[1] = (m[1] - m[2]) + m[3];
}
HONED_INLINE void output_line(const vf (&m)[6], vf (&y)[4]) {
  const vf two = set1(2.0f), half = set1(0.5f);
  vf low = m[1] + m[2], high = m[3] + m[4];
  y[0] = m[0] + (low + high);
  y[2] = fmadd(two, high, half * low);
  low = (m[1] - m[2]) * set1(float(kHalfRoot2)), high = (m[3] - m[4]) * set1(float(kRoot2));
  y[1] = low + high;
  y[3] = fmadd(two, high, fmadd(half, low, m[5]));
}

// G g
HONED_INLINE void weight_line(const vd (&g)[3], vd (&u)[4]) {
  const vd half = set1(0.5);
  u[0] = g[0];
  u[1] = (g[0] + g[2] + g[1]) * half;
  u[2] = (g[0] + g[2] - g[1]) * half;
  u[3] = g[2];
}
HONED_INLINE void weight_line(const vd (&g)[3], vd (&u)[6]) {
  const vd by = set1(-2.0 / 3), third = set1(-1.0 / 3), root = set1(-2.0 / 3 * kHalfRoot2);
  vd even = by * g[0] + third * g[2], odd = root * g[1];
  u[0] = g[0];
  u[1] = even + odd;
  u[2] = even - odd;
  const vd sixth = set1(1.0 / 6), high = set1(kRoot2 / 6);
  even = sixth * g[0] - third * g[2], odd = high * g[1];
  u[3] = even + odd;
  u[4] = even - odd;
  u[5] = g[2];
}

template <int tile>
struct Tile {
  static constexpr int outputs = tile, inputs = tile + 2;
};
template <class F>
HONED_INLINE void with_tile(int tile, F&& body) {
  if (tile == 4)
    body(Tile<4>{});
  else
    body(Tile<2>{});
}

// Tiles [begin, end) of one row of an image; at: the first one's place in the block.
struct TileRow {
  int64_t n, row, begin, end, at;
};
HONED_INLINE TileRow tile_row(const WinogradArgs& a, int64_t item) {
  const int64_t row = a.first / a.across + item, start = row * a.across;
  const int64_t begin = a.first > start ? a.first : start;
  const int64_t last = a.first + a.count, stop = start + a.across;
  const int64_t end = last < stop ? last : stop;
  return {row / a.down, row % a.down, begin - start, end - start, begin - a.first};
}

}  // namespace
HONED_END_LEVEL
