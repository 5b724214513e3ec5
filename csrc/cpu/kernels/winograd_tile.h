// One dimension of Winograd's transforms, by interpolation at 0, 1, -1 and infinity for 2 outputs, at 0,
// +-5/8, +-3/2 and infinity for 4.
#pragma once
#include "cpu/simd/vec_f64.h"
#include "ops/_winograd.h"

HONED_BEGIN_LEVEL
namespace {

constexpr double kNear = 0.625, kFar = 1.5;
constexpr double kNear2 = kNear * kNear, kFar2 = kFar * kFar;

// B^T d
HONED_INLINE void input_line(const vf (&d)[4], vf (&v)[4]) {
  v[0] = d[0] - d[2];
  v[1] = d[1] + d[2];
  v[2] = d[2] - d[1];
  v[3] = d[3] - d[1];
}
HONED_INLINE void input_line(const vf (&d)[6], vf (&v)[6]) {
  const vf near2 = set1(float(-kNear2)), far2 = set1(float(-kFar2));
  const vf sum = set1(float(-kNear2 - kFar2)), product = set1(float(kNear2 * kFar2));
  vf even = fmadd(far2, d[2], d[4]), odd = fmadd(far2, d[1], d[3]) * set1(float(kNear));
  v[1] = even + odd;
  v[2] = even - odd;
  even = fmadd(near2, d[2], d[4]), odd = fmadd(near2, d[1], d[3]) * set1(float(kFar));
  v[3] = even + odd;
  v[4] = even - odd;
  v[0] = fmadd(product, d[0], fmadd(sum, d[2], d[4]));
  v[5] = fmadd(product, d[1], fmadd(sum, d[3], d[5]));
}

// A^T m
HONED_INLINE void output_line(const vf (&m)[4], vf (&y)[2]) {
  y[0] = m[0] + (m[1] + m[2]);
  y[1] = (m[1] - m[2]) + m[3];
}
HONED_INLINE void output_line(const vf (&m)[6], vf (&y)[4]) {
  const vf near2 = set1(float(kNear2)), far2 = set1(float(kFar2));
  vf near = m[1] + m[2], far = m[3] + m[4];
  y[0] = m[0] + (near + far);
  y[2] = fmadd(far2, far, near2 * near);
  near = (m[1] - m[2]) * set1(float(kNear)), far = (m[3] - m[4]) * set1(float(kFar));
  y[1] = near + far;
  y[3] = fmadd(far2, far, fmadd(near2, near, m[5]));
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
  constexpr double near = 0.5 / (kNear2 * (kNear2 - kFar2)), far = 0.5 / (kFar2 * (kFar2 - kNear2));
  vd even = set1(near) * g[0] + set1(near * kNear2) * g[2], odd = set1(near * kNear) * g[1];
  u[0] = set1(1 / (kNear2 * kFar2)) * g[0];
  u[1] = even + odd;
  u[2] = even - odd;
  even = set1(far) * g[0] + set1(far * kFar2) * g[2], odd = set1(far * kFar) * g[1];
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
