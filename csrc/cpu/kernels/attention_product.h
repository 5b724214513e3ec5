// Products of a block of attention, transposed: queries along the lanes. A step of a sum is one
// element in f32, or a pair of bf16 in 32 bits.
#pragma once
#include "cpu/kernels/attention.h"

HONED_BEGIN_LEVEL
namespace {

struct Floats {
  using T = float;
  using Row = vf;
  static constexpr int count = 1;  // elements a step
  HONED_INLINE static vf row(const float* p) { return load(p); }
  HONED_INLINE static vf spread(const float* p) { return set1(*p); }
  HONED_INLINE static vf add(vf sum, vf x, vf row) { return fmadd(x, row, sum); }
};
#ifdef __AVX512BF16__
struct Pairs {
  using T = bf16;
  using Row = vi;
  static constexpr int count = 2;
  HONED_INLINE static vi row(const float* p) { return load_int(p); }
  HONED_INLINE static vi spread(const bf16* p) {
    int32_t pair;
    __builtin_memcpy(&pair, p, 4);
    return set1_int(pair);
  }
  HONED_INLINE static vf add(vf sum, vi x, vi row) { return dot2(sum, x, row); }
  HONED_INLINE static vi merge(vf even, vf odd) {  // rounded
    alignas(64) static constexpr int16_t kOrder[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                       21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                       11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    auto both = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
    return _mm512_permutexvar_epi16(_mm512_load_si512(kOrder), both);
  }
};
#endif

// The left operand: step l of row i is at data[i * row + l * step].
template <class T>
struct Left {
  const T* data;
  int64_t row, step;
};

constexpr int kTileVecs = kLanes == 16 ? 4 : 2;
// Rows of a tile of V vectors: accumulators, the loaded vectors and a broadcast fill the registers.
template <int V>
constexpr int kTileRows = (kLanes == 16 ? 24 : 12) / V;

// c[i][.] = c[i][.] * rescale[.] + sum_l left(i, l) * b[l][.] for n <= N rows of V vectors; without
// rescale what c holds counts for nothing. Rows of b and c are ld apart.
template <class Kind, int N, int V>
HONED_INLINE void tile(const Left<typename Kind::T>& left, int n, int64_t count, const float* b,
                       float* c, int64_t ld, const float* rescale) {
  const typename Kind::T* p[N];
  vf sum[N][V];
  for (int i = 0; i < N; ++i) p[i] = left.data + (i < n ? i : n - 1) * left.row;
  for (int i = 0; i < N; ++i)
    for (int v = 0; v < V; ++v) sum[i][v] = zero();
  for (int64_t l = 0, at = 0; l < count; ++l, at += left.step, b += ld) {
    typename Kind::Row row[V];
    for (int v = 0; v < V; ++v) row[v] = Kind::row(b + v * kLanes);
    for (int i = 0; i < N; ++i) {
      auto x = Kind::spread(p[i] + at);
      for (int v = 0; v < V; ++v) sum[i][v] = Kind::add(sum[i][v], x, row[v]);
    }
  }
  for (int i = 0; i < N; ++i)
    if (i < n)
      for (int v = 0; v < V; ++v) {
        float* to = c + i * ld + v * kLanes;
        store(to, rescale ? fmadd(load(to), load(rescale + v * kLanes), sum[i][v]) : sum[i][v]);
      }
}

// The same for any n.
template <class Kind, int V>
void tiles(const Left<typename Kind::T>& left, int64_t n, int64_t count, const float* b, float* c,
           int64_t ld, const float* rescale) {
  constexpr int N = kTileRows<V>;
  for (int64_t i = 0; i < n; i += N) {
    Left<typename Kind::T> rows{left.data + i * left.row, left.row, left.step};
    int m = int(smaller(N, n - i));
    float* to = c + i * ld;
    if (m <= N / 3)
      tile<Kind, N / 3, V>(rows, m, count, b, to, ld, rescale);
    else if (m <= N * 2 / 3)
      tile<Kind, N * 2 / 3, V>(rows, m, count, b, to, ld, rescale);
    else
      tile<Kind, N, V>(rows, m, count, b, to, ld, rescale);
  }
}

// The same for any number of vectors.
template <class Kind>
HONED_INLINE void product(const Left<typename Kind::T>& left, int64_t n, int64_t count,
                          const float* b, float* c, int64_t ld, int vecs, const float* rescale) {
  for (int v = 0; v < vecs; v += kTileVecs) {
    int64_t at = v * kLanes;
    const float* scale = rescale ? rescale + at : nullptr;
    int left_over = vecs - v;
    if (left_over == 1)
      tiles<Kind, 1>(left, n, count, b + at, c + at, ld, scale);
    else if (left_over == 2 || kTileVecs == 2)
      tiles<Kind, 2>(left, n, count, b + at, c + at, ld, scale);
    else if (left_over == 3)
      tiles<Kind, kTileVecs == 2 ? 2 : 3>(left, n, count, b + at, c + at, ld, scale);
    else
      tiles<Kind, kTileVecs>(left, n, count, b + at, c + at, ld, scale);
  }
}

}  // namespace
HONED_END_LEVEL
