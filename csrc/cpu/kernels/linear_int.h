// Rows rounded to int8 times a panel of int8 or int4 weights.
#pragma once
#include "cpu/kernels/linear_tile.h"

HONED_BEGIN_LEVEL
namespace {

// Rows of a tile. Of long groups: its int32 sums, the weights and one broadcast fill the registers.
// Of short groups: half as many, as every int32 sum has a float beside it.
#if defined(__AVX512F__)
constexpr int kLongRows = 14, kShortRows = 6;
#else
constexpr int kLongRows = 4, kShortRows = 2;
#endif
// Inputs of a chunk of int8 weights, which all tiles of a block of rows read from the first cache.
constexpr int kIntDepth = 1024;

HONED_INLINE int32_t load_quad(const int8_t* p) {
  int32_t quad;
  __builtin_memcpy(&quad, p, 4);
  return quad;
}

// body(0) to body(N - 1), unrolled: GCC 12 leaves large loops rolled, and the sums that they index
// in memory.
template <int N, class F>
HONED_INLINE void unrolled(F&& body) {
  if constexpr (N > 0) {
    unrolled<N - 1>(body);
    body(N - 1);
  }
}

// sum[m][v] += the products of `count` inputs of MR rows with kWide vectors of channels. Unrolled
// twice it lost 7 % (Zen 4).
template <int MR, bool kNibbles>
HONED_INLINE void add_products(const uint8_t* w, int64_t count, const int8_t* x, int64_t x_stride,
                               vi (&sum)[MR][kWide]) {
  // A pointer every three rows: one a row would not fit the registers.
  constexpr int kPointers = (MR + 2) / 3, kStep = kNibbles ? 8 : 4;
  const int8_t* rows[kPointers];
  for (int i = 0; i < kPointers; ++i) rows[i] = x + 3 * i * x_stride;
  auto quad = [&](const vi(&column)[kWide], int at) __attribute__((always_inline)) {
    unrolled<MR>([&](int m) __attribute__((always_inline)) {
      vi value = set1_int(load_quad(rows[m / 3] + m % 3 * x_stride + at));
      for (int v = 0; v < kWide; ++v) sum[m][v] = dot4(sum[m][v], column[v], value);
    });
  };
  for (int64_t i = 0; i < count; i += kStep, w += kPanel * 4) {
    for (int j = 0; j < kPointers; ++j) asm("" : "+r"(rows[j]));  // else GCC makes them one a row
    vi column[kWide], high[kWide];
    for (int v = 0; v < kWide; ++v) {
      column[v] = load_int(w + v * kLanes * 4);
      if constexpr (kNibbles) {
        high[v] = high_nibbles(column[v]);
        column[v] = low_nibbles(column[v]);
      }
    }
    quad(column, 0);
    if constexpr (kNibbles) quad(high, 4);
    for (int j = 0; j < kPointers; ++j) rows[j] += kStep;
  }
}

// Whole groups [first, end) of a panel.
struct Groups {
  int64_t first, end;
  const uint8_t* codes;  // int8 quads or int4 nibbles of `first`
  int64_t codes_stride;  // bytes from group to group
  const f16* steps;      // int4: 32 steps, then 32 lows
  int64_t steps_stride;  // elements from group to group
};

// Short groups times MR rows from `row` on, kWide vectors of channels.
template <int MR, bool kSteps, bool kNibbles>
void short_tile(const LinearArgs& a, const Groups& w, int channel, int64_t row, float* out) {
  const PackedView& p = a.w;
  const int64_t groups = (p.k_padded + p.group - 1) / p.group;
  const int8_t* q = a.rows.q + row * a.rows.q_stride;
  const uint8_t* codes = w.codes + channel * 4;
  const f16* steps = w.steps + channel;
  vf total[MR][kWide];
  unrolled<MR>([&](int m) __attribute__((always_inline)) {
    for (int v = 0; v < kWide; ++v)
      total[m][v] = w.first > 0 ? load(out + m * kPanel + v * kLanes) : zero();
  });
  for (int64_t g = w.first; g < w.end; ++g, codes += w.codes_stride, steps += w.steps_stride) {
    const float* scale = a.rows.scale + row * groups + g;
    const int32_t* q_sum = a.rows.sum + row * groups + g;
    const int64_t k = g * p.group, left = p.k_padded - k;
    vi sum[MR][kWide];
    unrolled<MR>([&](int m) __attribute__((always_inline)) {
      for (int v = 0; v < kWide; ++v)  // int8 bytes are w + 128, q_sum is times -128
        sum[m][v] = set1_int(kSteps ? 0 : q_sum[m * groups]);
    });
    add_products<MR, kNibbles>(codes, left < p.group ? left : p.group, q + k, a.rows.q_stride, sum);
    vf step[kWide], low[kWide];
    if constexpr (kSteps)
      for (int v = 0; v < kWide; ++v) {
        step[v] = load(steps + v * kLanes);
        low[v] = load(steps + kPanel + v * kLanes);
      }
    unrolled<MR>([&](int m) __attribute__((always_inline)) {
      float s = scale[m * groups];
      vf all = set1(s), base = set1(kSteps ? s * float(q_sum[m * groups]) : 0.0f);
      for (int v = 0; v < kWide; ++v) {
        vf product = to_float(sum[m][v]);
        if constexpr (kSteps) {
          total[m][v] = fmadd(base, low[v], total[m][v]);
          product = product * step[v];
        }
        total[m][v] = fmadd(product, all, total[m][v]);
      }
    });
  }
  unrolled<MR>([&](int m) __attribute__((always_inline)) {
    for (int v = 0; v < kWide; ++v) store(out + m * kPanel + v * kLanes, total[m][v]);
  });
}

// Inputs [k, end) of one long group times MR rows; `part` has the integer sums of its inputs before
// k, and receives them where the group is not complete.
template <int MR>
void long_tile(const LinearArgs& a, const uint8_t* codes, int64_t k, int64_t end, int channel,
               int64_t row, int32_t* part, float* out) {
  const PackedView& p = a.w;
  const int64_t groups = (p.k_padded + p.group - 1) / p.group, g = k / p.group;
  const int64_t scales = row * groups + g;
  vi sum[MR][kWide];
  unrolled<MR>([&](int m) __attribute__((always_inline)) {
    for (int v = 0; v < kWide; ++v)
      sum[m][v] = k > g * p.group ? load_int(part + m * kPanel + v * kLanes)
                                  : set1_int(a.rows.sum[scales + m * groups]);
  });
  add_products<MR, false>(codes + channel * 4, end - k, a.rows.q + row * a.rows.q_stride + k,
                          a.rows.q_stride, sum);
  bool complete = end == p.k_padded || end == (g + 1) * p.group;
  unrolled<MR>([&](int m) __attribute__((always_inline)) {
    vf scale = set1(a.rows.scale[scales + m * groups]);
    for (int v = 0; v < kWide; ++v) {
      int at = m * kPanel + v * kLanes;
      if (complete)
        store(out + at, fmadd(to_float(sum[m][v]), scale, g > 0 ? load(out + at) : zero()));
      else
        store_int(part + at, sum[m][v]);
    }
  });
}

// body(first row of a tile, first channel, where both lie in [row][channel], Rows<MR>)
template <int kMost, class F>
HONED_INLINE void for_int_tiles(int rows, F&& body) {
  for (int channel = 0; channel < kPanel; channel += kWide * kLanes)
    for_tiles<kMost>(rows, [&](int r, auto tile) { body(r, channel, r * kPanel + channel, tile); });
}

void int8_panel(const LinearArgs& a, const uint8_t* w, int64_t row, int rows, float* out) {
  const PackedView& p = a.w;
  int64_t depth = rows > kLongRows ? kIntDepth : p.k_padded;  // one tile needs no chunks
  if (p.group < kLongGroup) {
    const int64_t groups = (p.k_padded + p.group - 1) / p.group, most = kIntDepth / p.group;
    for (int64_t g = 0; g < groups; g += most) {
      int64_t end = groups - g < most ? groups : g + most;
      Groups chunk{g, end, w + g * p.group * kPanel, p.group * kPanel, nullptr, 0};
      for_int_tiles<kShortRows>(rows, [&](int r, int channel, int at, auto tile) {
        short_tile<decltype(tile)::count, false, false>(a, chunk, channel, row + r, out + at);
      });
    }
    return;
  }
  alignas(64) int32_t part[kBlockRows * kPanel];
  for (int64_t k = 0, end; k < p.k_padded; k = end) {
    end = p.k_padded - k < depth ? p.k_padded : k + depth;
    int64_t group_end = (k / p.group + 1) * p.group;
    if (group_end < end) end = group_end;
    for_int_tiles<kLongRows>(rows, [&](int r, int channel, int at, auto tile) {
      long_tile<decltype(tile)::count>(a, w + k * kPanel, k, end, channel, row + r, part + at,
                                       out + at);
    });
  }
}

void int4_panel(const LinearArgs& a, const uint8_t* w, int64_t row, int rows, float* out) {
  alignas(64) uint8_t opened[kDepth * kPanel];
  const PackedView& p = a.w;
  const int64_t codes = p.group * kPanel / 2, bytes = kPanel * 4 + codes;
  const int64_t groups = p.k_padded / p.group, most = kDepth / p.group;
  for (int64_t g = 0; g < groups; g += most) {
    const uint8_t* at = w + g * bytes;
    int64_t end = groups - g < most ? groups : g + most;
    Groups chunk{g, end, at + kPanel * 4, bytes, reinterpret_cast<const f16*>(at), bytes / 2};
    if (rows <= kShortRows) {
      for_int_tiles<kShortRows>(rows, [&](int r, int channel, int at, auto tile) {
        short_tile<decltype(tile)::count, true, true>(a, chunk, channel, row + r, out + at);
      });
      continue;
    }
    for (int64_t i = 0; i < end - g; ++i)
      for (int64_t j = 0; j < codes; j += kLanes * 4) {
        vi both = load_int(chunk.codes + i * bytes + j);
        uint8_t* to = opened + (i * codes + j / (kPanel * 4) * (kPanel * 4)) * 2 + j % (kPanel * 4);
        store_int(to, low_nibbles(both));
        store_int(to + kPanel * 4, high_nibbles(both));
      }
    chunk.codes = opened;
    chunk.codes_stride = codes * 2;
    for_int_tiles<kShortRows>(rows, [&](int r, int channel, int at, auto tile) {
      short_tile<decltype(tile)::count, true, false>(a, chunk, channel, row + r, out + at);
    });
  }
}

template <bool kSteps>
void int_panel(const LinearArgs& a, const uint8_t* w, int64_t row, int rows, float* out) {
  for (int i = 0; a.w.k_padded == 0 && i < rows * kPanel; i += kLanes) store(out + i, zero());
  if constexpr (kSteps)
    int4_panel(a, w, row, rows, out);
  else
    int8_panel(a, w, row, rows, out);
}

}  // namespace
HONED_END_LEVEL
