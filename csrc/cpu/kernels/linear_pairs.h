// Rows of bf16 times a panel of bf16 pairs by dot instructions, which add two products at once.
// They take subnormal numbers for zero.
#pragma once
#include "cpu/kernels/linear_tile.h"

HONED_BEGIN_LEVEL
namespace {

#ifdef __AVX512BF16__
HONED_INLINE vi two_inputs(const bf16* x) {
  int32_t both;
  __builtin_memcpy(&both, x, 4);
  return set1_int(both);
}

// out[m][c] (+)= sum_k x[m][k] w[k][c] for MR rows and two vectors of channels
template <int MR>
[[gnu::noinline]] void pairs_tile(const Pair* w, int64_t k, const bf16* x, int64_t x_row, bool add,
                                  float* out) {
  constexpr int kUnroll = MR == 1 ? 4 : MR < 4 ? 2 : 1;
  vf sum[kUnroll][MR][kWide];
  for (int u = 0; u < kUnroll; ++u)
    for (int m = 0; m < MR; ++m)
      for (int v = 0; v < kWide; ++v) sum[u][m][v] = zero();
  auto step = [&](int64_t i, int u, auto inputs) __attribute__((always_inline)) {
    vi column[kWide];
    for (int v = 0; v < kWide; ++v) column[v] = load_int(w + i * kPanel + v * kLanes);
    for (int m = 0; m < MR; ++m) {
      vi value = inputs(x + m * x_row + 2 * i);
      for (int v = 0; v < kWide; ++v) sum[u][m][v] = dot2(sum[u][m][v], value, column[v]);
    }
  };
  auto both = [](const bf16* p) __attribute__((always_inline)) { return two_inputs(p); };
  int64_t i = 0;
  for (; i + kUnroll <= k / 2; i += kUnroll)
    for (int u = 0; u < kUnroll; ++u) step(i + u, u, both);
  for (; i < k / 2; ++i) step(i, 0, both);
  if (k % 2)
    step(i, 0, [](const bf16* p) __attribute__((always_inline)) { return set1_int(p->bits); });
  for (int m = 0; m < MR; ++m)
    for (int v = 0; v < kWide; ++v) {
      vf total = sum[0][m][v];
      for (int u = 1; u < kUnroll; ++u) total = total + sum[u][m][v];
      float* to = out + m * kPanel + v * kLanes;
      store(to, add ? total + load(to) : total);
    }
}

void pairs_panel(const Pair* w, int64_t k, const bf16* x, int64_t x_row, int rows, int channels,
                 float* out) {
  for_chunks(k, 2 * kMaxDepth, [&](int64_t at, int64_t count) {
    for (int channel = 0; channel < channels; channel += kWide * kLanes)
      for_tiles<kRows>(rows, [&](int r, auto tile) {
        pairs_tile<decltype(tile)::count>(w + at / 2 * kPanel + channel, count, x + r * x_row + at,
                                          x_row, at > 0, out + r * kPanel + channel);
      });
  });
}
#endif

}  // namespace
HONED_END_LEVEL
