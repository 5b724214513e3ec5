// Rows of f32 times a panel of f32, f16 or bf16 weights.
#pragma once
#include "cpu/kernels/linear_tile.h"

HONED_BEGIN_LEVEL
namespace {

// out[m][c] (+)= sum_k x[m][k] w[k][c] for MR rows, kChannels channels of a panel and k of one
// chunk
template <int MR, class W>
void float_tile(const W* w, int64_t k, const float* x, int64_t x_stride, bool add, float* out) {
  constexpr int kUnroll = MR == 1 ? 4 : MR == 2 ? 2 : 1;  // independent sums hide the FMA latency
  vf sum[kUnroll][MR][kWide];
  for (int u = 0; u < kUnroll; ++u)
    for (int m = 0; m < MR; ++m)
      for (int v = 0; v < kWide; ++v) sum[u][m][v] = zero();
  auto step = [&](int64_t i, int u) __attribute__((always_inline)) {
    vf column[kWide];
    for (int v = 0; v < kWide; ++v) column[v] = load(w + i * kPanel + v * kLanes);
    for (int m = 0; m < MR; ++m) {
      vf value = set1(x[m * x_stride + i]);
      for (int v = 0; v < kWide; ++v) sum[u][m][v] = fmadd(value, column[v], sum[u][m][v]);
    }
  };
  int64_t i = 0;
  for (; i + kUnroll <= k; i += kUnroll)
    for (int u = 0; u < kUnroll; ++u) step(i + u, u);
  for (; i < k; ++i) step(i, 0);
  for (int m = 0; m < MR; ++m)
    for (int v = 0; v < kWide; ++v) {
      vf total = sum[0][m][v];
      for (int u = 1; u < kUnroll; ++u) total = total + sum[u][m][v];
      float* to = out + m * kPanel + v * kLanes;
      store(to, add ? total + load(to) : total);
    }
}

template <class W>
void float_panel(const LinearArgs& a, const W* w, int64_t row, int rows, float* out) {
  alignas(64) float wide[kDepth * kPanel];
  const float* x = a.rows.x + row * a.rows.x_stride;
  for (int64_t k = 0; k < a.w.k || k == 0; k += kDepth) {
    int64_t count = a.w.k - k < kDepth ? a.w.k - k : kDepth;
    const W* chunk = w + k * kPanel;
    auto tiles = [&](auto* from, auto most) {
      for (int channel = 0; channel < kPanel; channel += kChannels)
        for_tiles<decltype(most)::count>(rows, [&](int r, auto tile) {
          float_tile<decltype(tile)::count>(from + channel, count, x + r * a.rows.x_stride + k,
                                            a.rows.x_stride, k > 0, out + r * kPanel + channel);
        });
    };
    if (rows < kRows) {
      tiles(chunk, Rows<(kRows > 8 ? 8 : 4)>{});
    } else {
      for (int64_t i = 0; i < count * kPanel; i += kLanes) store(wide + i, load(chunk + i));
      tiles(static_cast<const float*>(wide), Rows<kRows>{});
    }
  }
}

}  // namespace
HONED_END_LEVEL
