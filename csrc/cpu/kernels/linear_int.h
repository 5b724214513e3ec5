// Rows rounded to int8 times a panel of int8 or int4 weights.
#pragma once
#include "cpu/kernels/linear_tile.h"

HONED_BEGIN_LEVEL
namespace {

// Rows of a tile: its int32 sums, the weights and one broadcast fill the registers.
#if defined(__AVX512F__)
constexpr int kIntRows = 14;
#else
constexpr int kIntRows = 4;
#endif
// Inputs of a chunk of int8 weights, which all tiles of a block of rows read from the first cache.
constexpr int kIntDepth = 512;

HONED_INLINE int32_t load_quad(const int8_t* p) {
  int32_t quad;
  __builtin_memcpy(&quad, p, 4);
  return quad;
}

// Inputs [first, first + count) of a panel: a few whole groups, or a part of one.
struct IntChunk {
  int64_t first, count;
  const uint8_t* codes;  // the panel's bytes, int8 quads or int4 nibbles, of `first`
  int64_t codes_stride;  // bytes from group to group
  const f16* steps;      // int4: 32 steps, then 32 lows
  int64_t steps_stride;  // elements from group to group
};

// sum[m][v] += the products of `count` inputs of MR rows with kWide vectors of channels
template <int MR, bool kNibbles>
HONED_INLINE void add_products(const uint8_t* w, int64_t count, const int8_t* x, int64_t x_stride,
                               vi (&sum)[MR][kWide]) {
  auto quad = [&](const vi(&column)[kWide], const int8_t* from) __attribute__((always_inline)) {
    for (int m = 0; m < MR; ++m) {
      vi value = set1_int(load_quad(from + m * x_stride));
      for (int v = 0; v < kWide; ++v) sum[m][v] = dot4(sum[m][v], column[v], value);
    }
  };
  for (int64_t i = 0; i < count; i += kNibbles ? 8 : 4, w += kPanel * 4) {
    vi column[kWide];
    for (int v = 0; v < kWide; ++v) column[v] = load_int(w + v * kLanes * 4);
    if constexpr (kNibbles) {
      vi high[kWide];
      for (int v = 0; v < kWide; ++v) {
        high[v] = high_nibbles(column[v]);
        column[v] = low_nibbles(column[v]);
      }
      quad(column, x + i);
      quad(high, x + i + 4);
    } else {
      quad(column, x + i);
    }
  }
}

// MR rows from `row` on times kChannels channels of a chunk. `part` keeps the integer sums of a
// group that is not complete.
template <int MR, bool kSteps, bool kNibbles>
void int_tile(const LinearArgs& a, const IntChunk& w, int channel, int64_t row, int32_t* part,
              float* out) {
  const PackedView& p = a.w;
  const int64_t groups = (p.k_padded + p.group - 1) / p.group;
  const int8_t* q = a.rows.q + row * a.rows.q_stride;
  const uint8_t* codes = w.codes + channel * 4;
  const f16* steps = w.steps + channel;
  const int64_t end = w.first + w.count;
  for (int64_t k = w.first; k < end; codes += w.codes_stride, steps += w.steps_stride) {
    const int64_t g = k / p.group;
    const float* scale = a.rows.scale + row * groups + g;
    const int32_t* q_sum = a.rows.sum + row * groups + g;
    int64_t until = (g + 1) * p.group < end ? (g + 1) * p.group : end;
    vi sum[MR][kWide];
    for (int m = 0; m < MR; ++m)
      for (int v = 0; v < kWide; ++v)  // int8 bytes are w + 128, q_sum is times -128
        sum[m][v] = k > g * p.group ? load_int(part + m * kPanel + v * kLanes)
                                    : set1_int(kSteps ? 0 : q_sum[m * groups]);
    add_products<MR, kNibbles>(codes, until - k, q + k, a.rows.q_stride, sum);
    k = until;
    if (k < (g + 1) * p.group && k < p.k_padded) {
      for (int m = 0; m < MR; ++m)
        for (int v = 0; v < kWide; ++v) store_int(part + m * kPanel + v * kLanes, sum[m][v]);
      return;
    }
    vf step[kWide], low[kWide];
    if constexpr (kSteps)
      for (int v = 0; v < kWide; ++v) {
        step[v] = load(steps + v * kLanes);
        low[v] = load(steps + kPanel + v * kLanes);
      }
    for (int m = 0; m < MR; ++m) {
      float s = scale[m * groups];
      vf all = set1(s), total = set1(kSteps ? s * float(q_sum[m * groups]) : 0.0f);
      for (int v = 0; v < kWide; ++v) {
        float* to = out + m * kPanel + v * kLanes;
        vf before = g > 0 ? load(to) : zero(), product = to_float(sum[m][v]);
        if constexpr (kSteps) {
          before = fmadd(total, low[v], before);
          product = product * step[v];
        }
        store(to, fmadd(product, all, before));
      }
    }
  }
}

// Opens int4 nibbles into quads.
HONED_INLINE void open_nibbles(const uint8_t* from, int64_t bytes, uint8_t* to) {
  for (int64_t j = 0; j < bytes; j += kPanel * 4, to += kPanel * 8)
    for (int v = 0; v < kPanel * 4; v += kLanes * 4) {
      vi both = load_int(from + j + v);
      store_int(to + v, low_nibbles(both));
      store_int(to + kPanel * 4 + v, high_nibbles(both));
    }
}

template <bool kSteps>
void int_panel(const LinearArgs& a, const uint8_t* w, int64_t row, int rows, float* out) {
  alignas(64) int32_t part[kBlockRows * kPanel];
  const PackedView& p = a.w;
  for (int i = 0; p.k_padded == 0 && i < rows * kPanel; i += kLanes) store(out + i, zero());
  auto tiles = [&](const IntChunk& chunk, auto nibbles) {
    for (int channel = 0; channel < kPanel; channel += kChannels)
      for_tiles<kIntRows>(rows, [&](int r, auto tile) {
        int at = r * kPanel + channel;
        int_tile<decltype(tile)::count, kSteps, decltype(nibbles)::count == 1>(
            a, chunk, channel, row + r, part + at, out + at);
      });
  };
  if constexpr (kSteps) {
    alignas(64) uint8_t opened[kDepth * kPanel];
    const int64_t codes = p.group * kPanel / 2, bytes = kPanel * 4 + codes;
    for (int64_t k = 0; k < p.k_padded; k += kDepth) {
      const uint8_t* at = w + k / p.group * bytes;
      int64_t count = p.k_padded - k < kDepth ? p.k_padded - k : kDepth;
      const f16* steps = reinterpret_cast<const f16*>(at);
      if (rows <= kIntRows) {
        tiles({k, count, at + kPanel * 4, bytes, steps, bytes / 2}, Rows<1>{});
        continue;
      }
      for (int64_t i = 0; i < count / p.group; ++i)
        open_nibbles(at + i * bytes + kPanel * 4, codes, opened + i * codes * 2);
      tiles({k, count, opened, codes * 2, steps, bytes / 2}, Rows<0>{});
    }
  } else {
    // One tile needs no chunks; a chunk ends with a group or lies within one.
    int64_t depth = p.group < kIntDepth ? kIntDepth / p.group * p.group : kIntDepth;
    if (rows <= kIntRows) depth = p.k_padded;
    for (int64_t k = 0, count; k < p.k_padded; k += count) {
      count = p.k_padded - k < depth ? p.k_padded - k : depth;
      if (int64_t left = p.group - k % p.group; p.group > depth && left < count) count = left;
      tiles({k, count, w + k * kPanel, p.group * kPanel, nullptr, 0}, Rows<0>{});
    }
  }
}

}  // namespace
HONED_END_LEVEL
