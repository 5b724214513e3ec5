// y = act(x w^T + b) + residual, panel by panel: a tile of rows times the panel's 32 channels, then
// the epilogue on the tile while it is in the first-level cache.
#include "ops/linear.h"

#include "cpu/simd/math.h"
#include "cpu/visit.h"

HONED_BEGIN_LEVEL

namespace {

// A tile takes kWide vectors of channels at a time and up to kRows rows; the accumulators, the
// weight vectors and one broadcast fill the registers (32 with AVX-512, else 16).
#if defined(__AVX512F__)
constexpr int kRows = 14, kIntRows = 6;
#else
constexpr int kRows = 6, kIntRows = 2;
#endif
constexpr int kWide =
    2;  // asking for weights ahead of use gained nothing beside the hardware (Zen 4)
constexpr int kChannels = kWide * kLanes;
// Inputs of a chunk: partial sums over it keep the rounding error of long rows down, and a chunk of
// a panel, widened once for all rows of a block, fits the first two caches. A multiple of every
// group.
constexpr int kDepth = 256;
constexpr int kBlockRows = 84;  // rows of a block, whole tiles of either kind
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

template <int MR>
struct Rows {
  static constexpr int count = MR;
};

// Calls body(first, Rows<MR>) over `rows` rows in tiles of at most kMost.
template <int kMost, class F>
HONED_INLINE void for_tiles(int rows, F&& body) {
  int r = 0;
  for (; rows - r >= kMost; r += kMost) body(r, Rows<kMost>{});
  if constexpr (kMost > 8)
    if (rows - r >= 8) body(r, Rows<8>{}), r += 8;
  if constexpr (kMost > 4)
    if (rows - r >= 4) body(r, Rows<4>{}), r += 4;
  if (rows - r >= 2) body(r, Rows<2>{}), r += 2;
  if (rows - r >= 1) body(r, Rows<1>{});
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

// A chunk of grid4 or grid8 weights as the floats they are, [k][channel].
template <bool kFour>
void open_grid(const uint8_t* w, int64_t groups, float* wide) {
  constexpr int kGroup = 32, kRun = kFour ? 8 : 4;  // inputs a 32-bit lane holds
  for (int64_t g = 0; g < groups; ++g) {
    const f16* steps = reinterpret_cast<const f16*>(w);
    w += kPanel * (kFour ? 4 : 2);
    for (int c = 0; c < kPanel; c += kLanes) {
      vf step = load(steps + c), low = kFour ? load(steps + kPanel + c) : zero();
      float* to = wide + g * kGroup * kPanel + c;
      for (int k = 0; k < kGroup; k += kRun) {
        vi codes = load_int(w + (k / kRun * kPanel + c) * 4);
        for (int j = 0; j < 4; ++j) {
          if constexpr (kFour) {
            store(to + (k + j) * kPanel, fmadd(to_float(bits_of<4>(codes, 8 * j)), step, low));
            store(to + (k + j + 4) * kPanel,
                  fmadd(to_float(bits_of<4>(codes, 8 * j + 4)), step, low));
          } else {
            vf code = to_float(bits_of<8>(codes, 8 * j)) - set1(128.0f);
            store(to + (k + j) * kPanel, code * step);
          }
        }
      }
    }
    w += kPanel * kGroup / (kFour ? 2 : 1);
  }
}

// Few rows open small chunks, which stay in the first cache; many rows a whole one.
template <bool kFour>
void grid_panel(const LinearArgs& a, const uint8_t* w, int64_t row, int rows, float* out) {
  alignas(64) float wide[kDepth * kPanel];
  const PackedView& p = a.w;
  const int64_t groups = p.k_padded / p.group, most = rows < kRows ? 2 : kDepth / p.group;
  const int64_t group_bytes = kPanel * (kFour ? 4 + p.group / 2 : 2 + p.group);
  const float* x = a.rows.x + row * a.rows.x_stride;
  for (int64_t g = 0; g < groups || g == 0; g += most) {
    int64_t here = groups - g < most ? groups - g : most, k = g * p.group;
    int64_t count = p.k - k < here * p.group ? p.k - k : here * p.group;
    open_grid<kFour>(w + g * group_bytes, here, wide);
    for (int channel = 0; channel < kPanel; channel += kChannels)
      for_tiles<kRows>(rows, [&](int r, auto tile) {
        float_tile<decltype(tile)::count>(static_cast<const float*>(wide) + channel, count,
                                          x + r * a.rows.x_stride + k, a.rows.x_stride, k > 0,
                                          out + r * kPanel + channel);
      });
  }
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
      for (int channel = 0; channel < kPanel; channel += kChannels)
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

// The products of `rows` rows with a panel, scaled and with the bias added.
void panel_product(const LinearArgs& a, int64_t panel, int64_t row, int rows, float* out) {
  const PackedView& p = a.w;
  const uint8_t* w = p.data + panel * p.panel_bytes;
  switch (p.kind) {
    case WeightKind::f32:
      float_panel(a, reinterpret_cast<const float*>(w), row, rows, out);
      break;
    case WeightKind::f16:
      float_panel(a, reinterpret_cast<const f16*>(w), row, rows, out);
      break;
    case WeightKind::bf16:
      float_panel(a, reinterpret_cast<const bf16*>(w), row, rows, out);
      break;
    case WeightKind::int8:
      int_panel<false>(a, w, row, rows, out);
      break;
    case WeightKind::int4:
      int_panel<true>(a, w, row, rows, out);
      break;
    case WeightKind::grid4:
      grid_panel<true>(a, w, row, rows, out);
      break;
    case WeightKind::grid8:
      grid_panel<false>(a, w, row, rows, out);
      break;
  }
  if (!p.scales && !p.bias) return;
  for (int c = 0; c < kPanel; c += kLanes) {
    vf scale = p.scales ? load(p.scales + panel * kPanel + c) : set1(1.0f);
    vf bias = p.bias ? load(p.bias + panel * kPanel + c) : zero();
    for (int m = 0; m < rows; ++m) {
      float* at = out + m * kPanel + c;
      store(at, fmadd(load(at), scale, bias));
    }
  }
}

HONED_INLINE vf activate(vf x, Activation activation) {
  switch (activation) {
    case Activation::none:
      return x;
    case Activation::relu:
      return vmax(zero(), x);
    case Activation::gelu:
      return vgelu(x);
    case Activation::gelu_tanh:
      return vgelu_tanh(x);
    case Activation::silu:
      return vsilu(x);
  }
  return x;
}

template <class T>
void finish(const LinearArgs& a, int64_t unit, int64_t row, int rows, const float* out,
            const float* up) {
  int64_t first = unit * kPanel, left = a.w.n - first;
  int count = int(left < kPanel ? left : kPanel);
  for (int m = 0; m < rows; ++m) {
    T* y = static_cast<T*>(a.y) + (row + m) * a.y_stride + first;
    const T* residual =
        a.residual ? static_cast<const T*>(a.residual) + (row + m) * a.residual_stride + first
                   : nullptr;
    for_lanes(count, [&](int64_t c, int n) {
      vf value = activate(load(out + m * kPanel + c), a.activation);
      if (up) value = value * load(up + m * kPanel + c);
      if (residual) value = value + load(residual + c, n);
      store(y + c, value, n);
    });
  }
}

}  // namespace

void linear(const LinearArgs& a, int64_t begin, int64_t end) {
  alignas(64) float out[2][kBlockRows * kPanel];
  for (int64_t unit = begin; unit < end; ++unit)
    for (int64_t row = 0; row < a.m; row += kBlockRows) {
      int rows = int(a.m - row < kBlockRows ? a.m - row : kBlockRows);
      panel_product(a, a.w.gated ? 2 * unit : unit, row, rows, out[0]);
      if (a.w.gated) panel_product(a, 2 * unit + 1, row, rows, out[1]);
      visit_float(a.dtype, [&](auto t) {
        finish<typename decltype(t)::type>(a, unit, row, rows, out[0],
                                           a.w.gated ? out[1] : nullptr);
      });
    }
}

HONED_END_LEVEL
