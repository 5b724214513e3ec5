// Rows of f16 times a panel of f16 weights, 32 products an instruction, summed in f16 over a few
// inputs and in f32 beyond them. Written without a CPU that has AVX512-FP16: tested by emulation
// (tests/emulation).
#pragma once
#include "cpu/kernels/linear_tile.h"

HONED_BEGIN_LEVEL
namespace {

#ifdef __AVX512FP16__
constexpr int64_t kHalfChunk = 512;  // inputs whose weights (32 KB) all tiles of a block read

HONED_INLINE __m512h half_of_all(const f16* x) {
  _Float16 value;
  __builtin_memcpy(&value, x, 2);
  return _mm512_set1_ph(value);
}

// out[m][c] (+)= sum_k x[m][k] w[k][c] for MR rows
template <int MR>
[[gnu::noinline]] void half_tile(const f16* w, int64_t k, const f16* x, int64_t x_row, bool add,
                                 float* out) {
  constexpr int kSums = MR < 3 ? 4 : MR < 6 ? 2 : 1;  // of a row: they hide the FMA latency
  for (int64_t at = 0; at == 0 || at < k; at += kSums * kHalfSum) {
    const int64_t count = k - at < kSums * kHalfSum ? k - at : kSums * kHalfSum;
    __m512h sum[kSums][MR];
    for (int u = 0; u < kSums; ++u)
      for (int m = 0; m < MR; ++m) sum[u][m] = _mm512_setzero_ph();
    auto step = [&](int64_t i, int u) __attribute__((always_inline)) {
      __m512h column = _mm512_loadu_ph(w + i * kPanel);
      for (int m = 0; m < MR; ++m)
        sum[u][m] = _mm512_fmadd_ph(half_of_all(x + m * x_row + i), column, sum[u][m]);
    };
    int64_t i = at;
    for (; i + kSums <= at + count; i += kSums)
      for (int u = 0; u < kSums; ++u) step(i + u, u);
    for (int u = 0; u < kSums - 1; ++u)
      if (i + u < at + count) step(i + u, u);
    for (int m = 0; m < MR; ++m) {
      f16 halves[kSums][kPanel];
      for (int u = 0; u < kSums; ++u) _mm512_storeu_ph(halves[u], sum[u][m]);
      for (int c = 0; c < kPanel; c += kLanes) {
        float* to = out + m * kPanel + c;
        vf total = load(halves[0] + c);
        for (int u = 1; u < kSums; ++u) total = total + load(halves[u] + c);
        store(to, add || at > 0 ? total + load(to) : total);
      }
    }
  }
}

void half_panel(const f16* w, int64_t k, const f16* x, int64_t x_row, int rows, float* out) {
  for_chunks(k, kHalfChunk, [&](int64_t at, int64_t count) {
    for_tiles<kRows>(rows, [&](int r, auto tile) {
      half_tile<decltype(tile)::count>(w + at * kPanel, count, x + r * x_row + at, x_row, at > 0,
                                       out + r * kPanel);
    });
  });
}
#endif

}  // namespace
HONED_END_LEVEL
