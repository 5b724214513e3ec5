// Rows of f32 or f64 times a panel of float weights.
#pragma once
#include "cpu/kernels/linear_tile.h"
#include "cpu/simd/vec_f64.h"
#include "ops/matmul.h"

HONED_BEGIN_LEVEL
namespace {

template <class W>
constexpr bool kPairs = false;
template <>
constexpr bool kPairs<Pair> = true;

// Where sums go straight from registers: f32 with channels side by side; an activation that clamps.
struct Straight {
  float* y;
  int64_t y_row;
  const float *bias, *residual;
  int64_t residual_row;
  float low, high;
  int channels;  // of the panel
};

// The sums of a tile: MR rows, kWide vectors of channels; few sums in several copies that hide the
// latency of the FMA.
template <int MR, class S, int kWide>
struct TileSums {
  using V = typename Simd<S>::type;
  static constexpr int kVector = Simd<S>::lanes, kCount = MR * kWide;
  static constexpr int kUnroll = kCount < 4 ? 4 : kCount < 8 ? 2 : 1;
  V sum[kUnroll][MR][kWide];

  HONED_INLINE TileSums() {
    for (int u = 0; u < kUnroll; ++u)
      for (int m = 0; m < MR; ++m)
        for (int v = 0; v < kWide; ++v) sum[u][m][v] = set1(S(0));
  }

  // sum[m][c] += sum_k x[m][k] w[k][c]; w and x have any row stride, x any column stride.
  template <class W>
  HONED_INLINE void add(const W* w, int64_t w_row, int64_t k, const S* x, int64_t x_row,
                        int64_t x_col) {
    auto add_input = [&](const V* column, int64_t i, int u) __attribute__((always_inline)) {
      for (int m = 0; m < MR; ++m) {
        V value = set1(x[m * x_row + i * x_col]);
        for (int v = 0; v < kWide; ++v) sum[u][m][v] = fmadd(value, column[v], sum[u][m][v]);
      }
    };
    V column[kWide];
    if constexpr (kPairs<W>) {
      vi pairs[kWide];
      auto load_pairs = [&](int64_t i) __attribute__((always_inline)) {
        for (int v = 0; v < kWide; ++v) {
          pairs[v] = load_int(w + i / 2 * w_row + v * kVector);
          column[v] = even_of_pairs(pairs[v]);
        }
      };
      int64_t i = 0;
      for (; i + 2 <= k; i += 2) {
        load_pairs(i);
        add_input(column, i, 0);
        for (int v = 0; v < kWide; ++v) column[v] = odd_of_pairs(pairs[v]);
        add_input(column, i + 1, kUnroll > 1);
      }
      if (i < k) {
        load_pairs(i);
        add_input(column, i, 0);
      }
    } else {
      auto step = [&](int64_t i, int u) __attribute__((always_inline)) {
        for (int v = 0; v < kWide; ++v) column[v] = load(w + i * w_row + v * kVector);
        add_input(column, i, u);
      };
      int64_t i = 0;
      for (; i + kUnroll <= k; i += kUnroll)
        for (int u = 0; u < kUnroll; ++u) step(i + u, u);
      for (; i < k; ++i) step(i, 0);
    }
  }

  // sum[m][c] += sum_k x[m x_row + at[k]] w[k][c]: inputs that lie anywhere.
  template <class W>
  HONED_INLINE void add_at(const W* w, const int32_t* at, int64_t k, const S* x, int64_t x_row) {
    for (int64_t i = 0; i < k; ++i) {
      const S* from = x + at[i];
      V column[kWide];
      for (int v = 0; v < kWide; ++v) column[v] = load(w + i * kPanel + v * kVector);
      for (int m = 0; m < MR; ++m) {
        V value = set1(from[m * x_row]);
        for (int v = 0; v < kWide; ++v) sum[0][m][v] = fmadd(value, column[v], sum[0][m][v]);
      }
    }
  }

  // y[m][c] = min(high, max(low, (more ? out + sum : sum) + bias[c] + residual[m][c])), from
  // registers to memory.
  HONED_INLINE void finish(const Straight& to, int64_t row, int channel, bool more,
                           const S* out) const {
    if constexpr (sizeof(S) == 4)
      for (int v = 0; v < kWide; ++v) {
        const int first = channel + v * kVector, left = to.channels - first;
        if (left <= 0) return;
        const float* sums = more ? out + v * kVector : nullptr;
        if (left >= kVector && !to.residual)
          finish_column<false>(to, row, first, v, kVector, sums);
        else if (left >= kVector)
          finish_column<true>(to, row, first, v, kVector, sums);
        else
          finish_column<true>(to, row, first, v, left, sums);
      }
  }

  // out has kPanel columns; panels after the first are those of matmul.
  HONED_INLINE void give(bool more, S* out) const {
    for (int m = 0; m < MR; ++m)
      for (int v = 0; v < kWide; ++v) {
        V total = sum[0][m][v];
        for (int u = 1; u < kUnroll; ++u) total = total + sum[u][m][v];
        S* to =
            out + m * kPanel + v * kVector / kPanel * kMatmulRows * kPanel + v * kVector % kPanel;
        store(to, more ? total + load(to) : total);
      }
  }

 private:
  // A vector of channels from `first` on, n of them.
  template <bool maybe_residual>
  HONED_INLINE void finish_column(const Straight& to, int64_t row, int first, int v, int n,
                                  const float* sums) const {
    const vf low = set1(to.low), high = set1(to.high);
    const vf bias = to.bias ? load(to.bias + first) : zero();
    float* y = to.y + row * to.y_row + first;
    const float* residual =
        maybe_residual && to.residual ? to.residual + row * to.residual_row + first : nullptr;
    for (int m = 0; m < MR; ++m) {
      V total = sum[0][m][v];
      for (int u = 1; u < kUnroll; ++u) total = total + sum[u][m][v];
      if (sums) total = total + load(sums + m * kPanel);
      total = total + bias;
      if (maybe_residual && residual) total = total + load(residual + m * to.residual_row, n);
      store(y + m * to.y_row, vmin(high, vmax(low, total)), n);
    }
  }
};

// out[m][c] (+)= sum_k x[m][k] w[k][c] for MR rows and kWide vectors of channels; with `straight`
// the sums are finished instead, from this row and channel of it on.
template <int MR, class S, class W, int kWide = 2>
[[gnu::noinline]] void float_tile(const W* w, int64_t w_row, int64_t k, const S* x, int64_t x_row,
                                  int64_t x_col, bool add, S* out,
                                  const Straight* straight = nullptr, int row = 0,
                                  int channel = 0) {
  TileSums<MR, S, kWide> sums;
  sums.add(w, w_row, k, x, x_row, x_col);
  if (straight)
    sums.finish(*straight, row, channel, add, out);
  else
    sums.give(add, out);
}

// All tiles of `rows` rows over the first `channels` channels of a panel, and one chunk.
template <int kMost, class S, class W>
HONED_INLINE void float_tiles(const W* w, int64_t w_row, int64_t k, const S* x, int64_t x_row,
                              int64_t x_col, int rows, int channels, bool add, S* out,
                              const Straight* straight = nullptr) {
  auto tiles = [&](auto wide, int channel) __attribute__((always_inline)) {
    for_tiles<kMost>(rows, [&](int r, auto tile) {
      float_tile<decltype(tile)::count, S, W, decltype(wide)::count>(
          w + channel, w_row, k, x + r * x_row, x_row, x_col, add, out + r * kPanel + channel,
          straight, r, channel);
    });
  };
  constexpr int kVector = Simd<S>::lanes;
  for (int channel = 0; channel < channels; channel += 2 * kVector) {
    if (channels - channel <= kVector)
      tiles(Rows<1>{}, channel);
    else
      tiles(Rows<2>{}, channel);
  }
}

// Weights of 16 bits as f32, [k][channel].
HONED_INLINE void widen(const f16* w, int64_t k, float* wide) {
  for (int64_t i = 0; i < k * kPanel; i += kLanes) store(wide + i, load(w + i));
}
HONED_INLINE void widen(const Pair* w, int64_t k, float* wide) {
  for (int64_t i = 0; i < k; i += 2)
    for (int c = 0; c < kPanel; c += kLanes) {
      vi pairs = load_int(w + i / 2 * kPanel + c);
      store(wide + i * kPanel + c, even_of_pairs(pairs));
      store(wide + (i + 1) * kPanel + c, odd_of_pairs(pairs));
    }
}

// out (+)= x w for `rows` rows and the first channels of one packed panel. Weights of 16 bits are widened once a chunk
// where several tiles use them. With `straight` the product is finished there.
template <class S, class W>
void float_panel(const W* w, int64_t k, const S* x, int64_t x_row, int rows, int channels, bool add,
                 S* out, const Straight* straight = nullptr) {
  for_chunks(k, kMaxDepth, [&](int64_t at, int64_t count) {
    const W* chunk = w + (kPairs<W> ? at / 2 : at) * kPanel;
    const bool more = add || at > 0;
    const Straight* last = at + count == k ? straight : nullptr;
    if constexpr (sizeof(W) == 2 || kPairs<W>) {
      if (rows < kRows) {
        float_tiles<kRows - 1>(chunk, kPanel, count, x + at, x_row, 1, rows, channels, more, out,
                               last);
      } else {
        alignas(64) float wide[(kMaxDepth + 1) * kPanel];
        widen(chunk, count, wide);
        float_tiles<kRows, float, float>(wide, kPanel, count, x + at, x_row, 1, rows, channels,
                                         more, out, last);
      }
    } else {
      float_tiles<kRows>(chunk, kPanel, count, x + at, x_row, 1, rows, channels, more, out, last);
    }
  });
}

}  // namespace
HONED_END_LEVEL
