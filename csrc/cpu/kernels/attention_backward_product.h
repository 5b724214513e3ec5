// The products of attention's backward: sums of outer products of a column that is broadcast with a
// row of vectors, kept in registers.
#pragma once
#include "cpu/simd/vec.h"

HONED_BEGIN_LEVEL
namespace {

// The left operand: element (i, l) is at data[i * row + l * step].
struct Left {
  const float* data;
  int64_t row, step;
};

// Rows of a tile of V vectors: the sums, a row of the right operand and a broadcast fill the
// registers (32 with AVX-512, else 16).
template <int V>
constexpr int kTileRows = kLanes == 16 ? (V == 1   ? 12
                                          : V == 2 ? 12
                                          : V == 3 ? 8
                                          : V == 4 ? 6
                                                   : 5)
                                       : 6;
constexpr int kWidest = kLanes == 16 ? 5 : 2;  // vectors of a tile

// c[i][.] (+)= sum_l left(i, l) * b[l][.] for N rows of V vectors.
template <int N, int V>
[[gnu::noinline]] void backward_tile(const Left& left, int64_t count, const float* b, int64_t ldb,
                                     float* c, int64_t ldc, bool add) {
  constexpr int kBases = (N + 2) / 3;  // an address every third row: x86 adds 0, 1 and 2 strides
  vf sum[N][V];
  for (int i = 0; i < N; ++i)
    for (int v = 0; v < V; ++v) sum[i][v] = add ? load(c + i * ldc + v * kLanes) : zero();
  const float* base[kBases];
  for (int j = 0; j < kBases; ++j) base[j] = left.data + 3 * j * left.row;
  for (int64_t l = 0; l < count; ++l, b += ldb) {
    vf row[V];
    for (int v = 0; v < V; ++v) row[v] = load(b + v * kLanes);
    for (int i = 0; i < N; ++i) {
      vf x = set1(base[i / 3][i % 3 * left.row]);
      for (int v = 0; v < V; ++v) sum[i][v] = fmadd(x, row[v], sum[i][v]);
    }
    for (int j = 0; j < kBases; ++j) base[j] += left.step;
  }
  for (int i = 0; i < N; ++i)
    for (int v = 0; v < V; ++v) store(c + i * ldc + v * kLanes, sum[i][v]);
}

// The last rows, fewer than a tile has.
template <int N, int V>
void backward_rest(int n, const Left& left, int64_t count, const float* b, int64_t ldb, float* c,
                   int64_t ldc, bool add) {
  if constexpr (N > 0) {
    if (n == N)
      backward_tile<N, V>(left, count, b, ldb, c, ldc, add);
    else
      backward_rest<N - 1, V>(n, left, count, b, ldb, c, ldc, add);
  }
}

template <int V>
void backward_column(int64_t n, const Left& left, int64_t count, const float* b, int64_t ldb,
                     float* c, int64_t ldc, bool add) {
  constexpr int N = kTileRows<V>;
  int64_t i = 0;
  for (; i + N <= n; i += N)
    backward_tile<N, V>({left.data + i * left.row, left.row, left.step}, count, b, ldb, c + i * ldc,
                        ldc, add);
  backward_rest<N - 1, V>(int(n - i), {left.data + i * left.row, left.row, left.step}, count, b,
                          ldb, c + i * ldc, ldc, add);
}

// The same for any n and any number of vectors.
void backward_product(int64_t n, const Left& left, int64_t count, const float* b, int64_t ldb,
                      int64_t vecs, float* c, int64_t ldc, bool add) {
  for (int64_t v = 0; v < vecs;) {
    int64_t left_over = vecs - v;
    const float* from = b + v * kLanes;
    float* to = c + v * kLanes;
    if constexpr (kWidest == 2) {
      if (left_over >= 2)
        backward_column<2>(n, left, count, from, ldb, to, ldc, add), v += 2;
      else
        backward_column<1>(n, left, count, from, ldb, to, ldc, add), v += 1;
    } else {
      if (left_over == 5)
        backward_column<5>(n, left, count, from, ldb, to, ldc, add), v += 5;
      else if (left_over >= 4 && left_over != 6)
        backward_column<4>(n, left, count, from, ldb, to, ldc, add), v += 4;
      else if (left_over >= 3)
        backward_column<3>(n, left, count, from, ldb, to, ldc, add), v += 3;
      else if (left_over == 2)
        backward_column<2>(n, left, count, from, ldb, to, ldc, add), v += 2;
      else
        backward_column<1>(n, left, count, from, ldb, to, ldc, add), v += 1;
    }
  }
}

}  // namespace
HONED_END_LEVEL
