// Rows rounded to int8 times a panel of int8 or int4 weights.
#pragma once
#include "cpu/kernels/linear_tile.h"

HONED_BEGIN_LEVEL
namespace {

HONED_INLINE int32_t load_quad(const int8_t* p) {
  int32_t quad;
  __builtin_memcpy(&quad, p, 4);
  return quad;
}

// Where the weights of one chunk lie: int8 quads (of int8 weights, or of int4 ones opened up) or
// int4 nibbles, and int4's steps and lows.
struct IntChunk {
  const uint8_t* codes;
  int64_t codes_stride;  // bytes from group to group
  const f16* steps;      // int4: 32 steps, then 32 lows
  int64_t steps_stride;  // elements from group to group
  int64_t first_group, groups;
};

// The same for quantised rows. `channel` is the tile's first in the panel.
template <int MR, bool kSteps, bool kNibbles>
void int_tile(const LinearArgs& a, const IntChunk& w, int channel, int64_t row, bool add,
              float* out) {
  const PackedView& p = a.w;
  const int64_t groups = p.k_padded / p.group;
  const int8_t* q = a.rows.q + row * p.k_padded + w.first_group * p.group;
  const float* scale = a.rows.scale + row * groups + w.first_group;
  const int32_t* q_sum = a.rows.sum + row * groups + w.first_group;
  vf sum[MR][kWide];
  for (int m = 0; m < MR; ++m)
    for (int v = 0; v < kWide; ++v) sum[m][v] = add ? load(out + m * kPanel + v * kLanes) : zero();
  for (int64_t g = 0; g < w.groups; ++g) {
    vi part[MR][kWide];
    for (int m = 0; m < MR; ++m)
      for (int v = 0; v < kWide; ++v)  // int8 bytes are w + 128
        part[m][v] = set1_int(kSteps ? 0 : -128 * q_sum[m * groups + g]);
    const uint8_t* at = w.codes + g * w.codes_stride + channel * 4;
    for (int i = 0; i < p.group; i += 8, at += kPanel * (kNibbles ? 4 : 8)) {
      vi low[kWide], high[kWide];
      for (int v = 0; v < kWide; ++v) {
        low[v] = load_int(at + v * kLanes * 4);
        if constexpr (kNibbles) {
          high[v] = high_nibbles(low[v]);
          low[v] = low_nibbles(low[v]);
        } else {
          high[v] = load_int(at + (v * kLanes + kPanel) * 4);
        }
      }
      for (int m = 0; m < MR; ++m) {
        const int8_t* x = q + m * p.k_padded + g * p.group + i;
        vi x0 = set1_int(load_quad(x)), x1 = set1_int(load_quad(x + 4));
        for (int v = 0; v < kWide; ++v) {
          part[m][v] = dot4(part[m][v], low[v], x0);
          part[m][v] = dot4(part[m][v], high[v], x1);
        }
      }
    }
    vf step[kWide], base[kWide];
    if constexpr (kSteps)
      for (int v = 0; v < kWide; ++v) {
        const f16* steps = w.steps + g * w.steps_stride + channel + v * kLanes;
        step[v] = load(steps);
        base[v] = load(steps + kPanel);
      }
    for (int m = 0; m < MR; ++m) {
      float s = scale[m * groups + g];
      vf all = set1(s), total = set1(s * float(q_sum[m * groups + g]));
      for (int v = 0; v < kWide; ++v) {
        vf product = to_float(part[m][v]);
        if constexpr (kSteps) sum[m][v] = fmadd(total, base[v], sum[m][v]);
        sum[m][v] = fmadd(kSteps ? product * step[v] : product, all, sum[m][v]);
      }
    }
  }
  for (int m = 0; m < MR; ++m)
    for (int v = 0; v < kWide; ++v) store(out + m * kPanel + v * kLanes, sum[m][v]);
}

template <bool kSteps>
void int_panel(const LinearArgs& a, const uint8_t* w, int64_t row, int rows, float* out) {
  alignas(64) uint8_t opened[kDepth * kPanel];
  const PackedView& p = a.w;
  const int64_t groups = p.k_padded / p.group, most = kDepth / p.group;
  const int64_t quads = p.group * kPanel;  // bytes of a group's codes, opened
  const int64_t group_bytes = kSteps ? kPanel * 4 + quads / 2 : quads;
  for (int i = 0; groups == 0 && i < rows * kPanel; i += kLanes) store(out + i, zero());
  for (int64_t g = 0; g < groups; g += most) {
    const uint8_t* at = w + g * group_bytes;
    IntChunk chunk{kSteps ? at + kPanel * 4 : at,
                   group_bytes,
                   reinterpret_cast<const f16*>(at),
                   group_bytes / 2,
                   g,
                   groups - g < most ? groups - g : most};
    auto tiles = [&](auto nibbles) {
      constexpr bool kNibbles = decltype(nibbles)::count == 1;
      for (int channel = 0; channel < kPanel; channel += kWide * kLanes)
        for_tiles<kIntRows>(rows, [&](int r, auto tile) {
          int_tile<decltype(tile)::count, kSteps, kNibbles>(a, chunk, channel, row + r, g > 0,
                                                            out + r * kPanel + channel);
        });
    };
    if (!kSteps) {
      tiles(Rows<0>{});
    } else if (rows <= kIntRows) {
      tiles(Rows<1>{});
    } else {
      for (int64_t i = 0; i < chunk.groups; ++i)
        for (int64_t j = 0; j < quads / 2; j += kPanel * 4)
          for (int v = 0; v < kPanel * 4; v += kLanes * 4) {
            vi both = load_int(chunk.codes + i * group_bytes + j + v);
            store_int(opened + i * quads + 2 * j + v, low_nibbles(both));
            store_int(opened + i * quads + 2 * j + kPanel * 4 + v, high_nibbles(both));
          }
      chunk.codes = opened;
      chunk.codes_stride = quads;
      tiles(Rows<0>{});
    }
  }
}

}  // namespace
HONED_END_LEVEL
