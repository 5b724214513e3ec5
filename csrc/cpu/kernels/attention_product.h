// Products of a block of attention, transposed: queries along the lanes.
#pragma once
#include "cpu/kernels/attention.h"

HONED_BEGIN_LEVEL
namespace {

// The left operand: element (i, l) is at data[i * row + l * step].
struct Left {
  const float* data;
  int64_t row, step;
};

constexpr int kTileVecs = kLanes == 16 ? 4 : 2;
// Rows of a tile of V vectors: accumulators, the loaded vectors and a broadcast fill the registers.
template <int V>
constexpr int kTileRows = (kLanes == 16 ? 24 : 12) / V;

// c[i][.] = c[i][.] * rescale[.] + sum_l left(i, l) * b[l][.] for n <= N rows of V vectors; without
// rescale c starts at 0. Rows of b and c are ld apart.
template <int N, int V>
HONED_INLINE void tile(const Left& left, int n, int64_t count, const float* b, float* c, int64_t ld,
                       const float* rescale) {
  const float* p[N];
  vf sum[N][V];
  for (int i = 0; i < N; ++i) p[i] = left.data + (i < n ? i : n - 1) * left.row;
  for (int i = 0; i < N; ++i)
    for (int v = 0; v < V; ++v)
      sum[i][v] =
          rescale && i < n ? load(c + i * ld + v * kLanes) * load(rescale + v * kLanes) : zero();
  for (int64_t l = 0, at = 0; l < count; ++l, at += left.step, b += ld) {
    vf row[V];
    for (int v = 0; v < V; ++v) row[v] = load(b + v * kLanes);
    for (int i = 0; i < N; ++i) {
      vf x = set1(p[i][at]);
      for (int v = 0; v < V; ++v) sum[i][v] = fmadd(x, row[v], sum[i][v]);
    }
  }
  for (int i = 0; i < N; ++i)
    if (i < n)
      for (int v = 0; v < V; ++v) store(c + i * ld + v * kLanes, sum[i][v]);
}

// The same for any n.
template <int V>
void tiles(const Left& left, int64_t n, int64_t count, const float* b, float* c, int64_t ld,
           const float* rescale) {
  constexpr int N = kTileRows<V>;
  for (int64_t i = 0; i < n; i += N) {
    Left rows{left.data + i * left.row, left.row, left.step};
    int m = int(smaller(N, n - i));
    float* to = c + i * ld;
    if (m <= N / 3)
      tile<N / 3, V>(rows, m, count, b, to, ld, rescale);
    else if (m <= N * 2 / 3)
      tile<N * 2 / 3, V>(rows, m, count, b, to, ld, rescale);
    else
      tile<N, V>(rows, m, count, b, to, ld, rescale);
  }
}

// The same for any number of vectors.
HONED_INLINE void product(const Left& left, int64_t n, int64_t count, const float* b, float* c,
                          int64_t ld, int vecs, const float* rescale) {
  for (int v = 0; v < vecs; v += kTileVecs) {
    int64_t at = v * kLanes;
    const float* scale = rescale ? rescale + at : nullptr;
    int left_over = vecs - v;
    if (left_over == 1)
      tiles<1>(left, n, count, b + at, c + at, ld, scale);
    else if (left_over == 2 || kTileVecs == 2)
      tiles<2>(left, n, count, b + at, c + at, ld, scale);
    else if (left_over == 3)
      tiles<kTileVecs == 2 ? 2 : 3>(left, n, count, b + at, c + at, ld, scale);
    else
      tiles<kTileVecs>(left, n, count, b + at, c + at, ld, scale);
  }
}

}  // namespace
HONED_END_LEVEL
