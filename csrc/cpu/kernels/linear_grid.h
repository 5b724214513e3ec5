// Rows of f32 times a panel of weights that are codes on a grid, or int8 with a scale at the end.
#pragma once
#include "cpu/kernels/linear_float.h"

HONED_BEGIN_LEVEL
namespace {

// A chunk of grid4, grid8 or (without steps) int8 weights as floats, [k][channel].
template <bool kFour, bool kSteps>
void open_grid(const uint8_t* w, int64_t groups, int group, float* wide) {
  constexpr int kRun = kFour ? 8 : 4;  // inputs a 32-bit lane holds
  for (int64_t g = 0; g < groups; ++g) {
    const f16* steps = reinterpret_cast<const f16*>(w);
    if (kSteps) w += kPanel * (kFour ? 4 : 2);
    for (int c = 0; c < kPanel; c += kLanes) {
      vf step = kSteps ? load(steps + c) : set1(1.0f);
      vf low = kFour ? load(steps + kPanel + c) : zero();
      float* to = wide + g * group * kPanel + c;
      for (int k = 0; k < group; k += kRun) {
        vi codes = load_int(w + (k / kRun * kPanel + c) * 4);
        for (int j = 0; j < 4; ++j) {
          if constexpr (kFour) {
            store(to + (k + j) * kPanel, fmadd(to_float(bits_of<4>(codes, 8 * j)), step, low));
            store(to + (k + j + 4) * kPanel,
                  fmadd(to_float(bits_of<4>(codes, 8 * j + 4)), step, low));
          } else {
            vf code = to_float(bits_of<8>(codes, 8 * j)) - set1(128.0f);
            store(to + (k + j) * kPanel, kSteps ? code * step : code);
          }
        }
      }
    }
    w += kPanel * group / (kFour ? 2 : 1);
  }
}

// Rows that meet codes opened in registers: more of them gain from opening to memory once.
#if defined(__AVX512F__)
constexpr int kFewRows = 6;
#else
constexpr int kFewRows = 2;
#endif
constexpr int kFewDepth = 128;  // inputs of a sum: 256 has 1.4 times the rounding error

// The four bits from bit `at` of every lane, as floats.
HONED_INLINE vf nibble(vi codes, int at) {
#if defined(__AVX512F__)  // a permutation looks at no higher bits: two operations instead of three
  const vf values = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  return _mm512_permutexvar_ps(_mm512_srli_epi32(codes, unsigned(at)), values);
#else
  return to_float(bits_of<4>(codes, at));
#endif
}

// MR rows times inputs [k, end) of a panel, whose codes begin at w with a group.
template <int MR, bool kFour, bool kSteps>
void few_tile(const LinearArgs& a, const uint8_t* w, int64_t k, int64_t end, int channel,
              const float* x, float* out) {
  constexpr int kRun = kFour ? 8 : 4;     // inputs a 32-bit lane holds
  constexpr int kSums = MR == 1 ? 2 : 1;  // independent sums hide the latency
  const PackedView& p = a.w;
  vf sum[kSums][MR][kWide];
  for (int u = 0; u < kSums; ++u)
    for (int m = 0; m < MR; ++m)
      for (int v = 0; v < kWide; ++v) sum[u][m][v] = zero();
  for (int64_t first = k; first < end; first += p.group) {
    const f16* steps = reinterpret_cast<const f16*>(w) + channel;
    if (kSteps) w += kPanel * (kFour ? 4 : 2);
    vf step[kWide], low[kWide];
    for (int v = 0; v < kWide; ++v) {
      step[v] = kSteps ? load(steps + v * kLanes) : set1(1.0f);
      low[v] = kFour ? load(steps + kPanel + v * kLanes) : zero();
    }
    int64_t count = end - first < p.group ? end - first : p.group;
    for (int64_t i = 0; i < count; i += kRun) {
      vi codes[kWide];
      for (int v = 0; v < kWide; ++v)
        codes[v] = load_int(w + (i / kRun * kPanel + channel + v * kLanes) * 4);
      const float* from = x + first + i;
      int64_t stride = a.rows.x_stride;
      float padded[MR][kRun];
      if (count - i < kRun) {
        for (int m = 0; m < MR; ++m)
          for (int j = 0; j < kRun; ++j) padded[m][j] = i + j < count ? from[m * stride + j] : 0;
        from = padded[0];
        stride = kRun;
      }
      for (int j = 0; j < kRun; ++j)
        for (int v = 0; v < kWide; ++v) {
          vf value;
          if constexpr (kFour) {
            value = fmadd(nibble(codes[v], 8 * (j % 4) + j / 4 * 4), step[v], low[v]);
          } else {
            value = to_float(bits_of<8>(codes[v], 8 * j)) - set1(128.0f);
            if (kSteps) value = value * step[v];
          }
          for (int m = 0; m < MR; ++m)
            sum[j % kSums][m][v] = fmadd(set1(from[m * stride + j]), value, sum[j % kSums][m][v]);
        }
    }
    w += kPanel * p.group / (kFour ? 2 : 1);
  }
  for (int m = 0; m < MR; ++m)
    for (int v = 0; v < kWide; ++v) {
      vf total = sum[0][m][v];
      if constexpr (kSums == 2) total = total + sum[1][m][v];
      float* to = out + m * kPanel + channel + v * kLanes;
      store(to, k > 0 ? total + load(to) : total);
    }
}

// More than a few rows open small chunks, which stay in the first cache; many rows a whole one.
template <bool kFour, bool kSteps = true>
void grid_panel(const LinearArgs& a, const uint8_t* w, int64_t row, int rows, float* out) {
  alignas(64) float wide[kDepth * kPanel];
  const PackedView& p = a.w;
  const int64_t groups = p.k_padded / p.group, most = (rows < kRows ? 64 : kDepth) / p.group;
  const int64_t group_bytes = kPanel * (kFour ? 4 + p.group / 2 : kSteps * 2 + p.group);
  const float* x = static_cast<const float*>(a.rows.x) + row * a.rows.x_stride;
  if (rows <= kFewRows) {
    for (int channel = 0; channel < kPanel; channel += kWide * kLanes)
      with_rows<kFewRows>(rows, [&](auto tile) {
        for (int64_t k = 0; k < p.k || k == 0; k += kFewDepth) {
          int64_t end = p.k - k < kFewDepth ? p.k : k + kFewDepth;
          few_tile<decltype(tile)::count, kFour, kSteps>(a, w + k / p.group * group_bytes, k, end,
                                                         channel, x, out);
        }
      });
    return;
  }
  for (int64_t g = 0; g < groups || g == 0; g += most) {
    int64_t here = groups - g < most ? groups - g : most, k = g * p.group;
    int64_t count = p.k - k < here * p.group ? p.k - k : here * p.group;
    open_grid<kFour, kSteps>(w + g * group_bytes, here, p.group, wide);
    float_tiles<kRows, float, float>(wide, kPanel, count, x + k, a.rows.x_stride, 1, rows, kPanel,
                                     k > 0, out);
  }
}

}  // namespace
HONED_END_LEVEL
