// Rows of f32 or f64 times a panel of float weights.
#pragma once
#include "cpu/kernels/linear_tile.h"
#include "cpu/simd/vec_f64.h"
#include "ops/matmul.h"

HONED_BEGIN_LEVEL
namespace {

// out[m][c] (+)= sum_k x[m][k] w[k][c] for MR rows and kWide vectors of channels. x and w have any
// row stride, x any column stride; out has kPanel columns; panels after
// the first are those of matmul.
template <int MR, class S, class W, int kWide = 2>
[[gnu::noinline]] void float_tile(const W* w, int64_t w_row, int64_t k, const S* x, int64_t x_row,
                                  int64_t x_col, bool add, S* out) {
  using V = typename Simd<S>::type;
  constexpr int kVector = Simd<S>::lanes;
  constexpr int kSums = MR * kWide;
  constexpr int kUnroll = kSums < 4 ? 4 : kSums < 8 ? 2 : 1;  // they hide the FMA latency
  V sum[kUnroll][MR][kWide];
  for (int u = 0; u < kUnroll; ++u)
    for (int m = 0; m < MR; ++m)
      for (int v = 0; v < kWide; ++v) sum[u][m][v] = set1(S(0));
  auto step = [&](int64_t i, int u) __attribute__((always_inline)) {
    V column[kWide];
    for (int v = 0; v < kWide; ++v) column[v] = load(w + i * w_row + v * kVector);
    for (int m = 0; m < MR; ++m) {
      V value = set1(x[m * x_row + i * x_col]);
      for (int v = 0; v < kWide; ++v) sum[u][m][v] = fmadd(value, column[v], sum[u][m][v]);
    }
  };
  int64_t i = 0;
  for (; i + kUnroll <= k; i += kUnroll)
    for (int u = 0; u < kUnroll; ++u) step(i + u, u);
  for (; i < k; ++i) step(i, 0);
  for (int m = 0; m < MR; ++m)
    for (int v = 0; v < kWide; ++v) {
      V total = sum[0][m][v];
      for (int u = 1; u < kUnroll; ++u) total = total + sum[u][m][v];
      S* to = out + m * kPanel + v * kVector / kPanel * kMatmulRows * kPanel + v * kVector % kPanel;
      store(to, add ? total + load(to) : total);
    }
}

// All tiles of `rows` rows over kPanel channels of one chunk.
template <int kMost, class S, class W>
HONED_INLINE void float_tiles(const W* w, int64_t w_row, int64_t k, const S* x, int64_t x_row,
                              int64_t x_col, int rows, bool add, S* out) {
  constexpr int kChannels = 2 * Simd<S>::lanes;
  for (int channel = 0; channel < kPanel; channel += kChannels)
    for_tiles<kMost>(rows, [&](int r, auto tile) {
      float_tile<decltype(tile)::count, S, W>(w + channel, w_row, k, x + r * x_row, x_row, x_col,
                                              add, out + r * kPanel + channel);
    });
}

// out (+)= x w for `rows` rows and one packed panel [k][channel]. Weights of 16 bits are widened
// once a chunk where several tiles use them.
template <class S, class W>
void float_panel(const W* w, int64_t k, const S* x, int64_t x_row, int rows, bool add, S* out) {
  const int64_t depth = chunk_depth(k);
  for (int64_t at = 0; at < k || (k == 0 && at == 0 && !add); at += depth ? depth : 1) {
    int64_t count = k - at < depth ? k - at : depth;
    const W* chunk = w + at * kPanel;
    bool more = add || at > 0;
    if constexpr (sizeof(W) == 2) {
      if (rows < kRows) {
        float_tiles<kRows - 1>(chunk, kPanel, count, x + at, x_row, 1, rows, more, out);
      } else {
        alignas(64) float wide[kMaxDepth * kPanel];
        for (int64_t i = 0; i < count * kPanel; i += kLanes) store(wide + i, load(chunk + i));
        float_tiles<kRows, float, float>(wide, kPanel, count, x + at, x_row, 1, rows, more, out);
      }
    } else {
      float_tiles<kRows>(chunk, kPanel, count, x + at, x_row, 1, rows, more, out);
    }
  }
}

}  // namespace
HONED_END_LEVEL
