// y = act(x w^T + b) + residual, panel by panel: a tile of rows times the panel's 32 channels, then the
// epilogue on the tile while it is in the first-level cache.
#include "ops/linear.h"

#include "cpu/simd/math.h"
#include "cpu/visit.h"

HONED_BEGIN_LEVEL

namespace {

// A tile takes kWide vectors of channels at a time and up to kRows rows; the accumulators, the weight
// vectors and one broadcast fill the registers (32 with AVX-512, else 16).
#if defined(__AVX512F__)
constexpr int kRows = 14, kIntRows = 6;
#else
constexpr int kRows = 6, kIntRows = 2;
#endif
constexpr int kWide = 2;
constexpr int kChannels = kWide * kLanes;
// Weights are read this far ahead: the hardware stops at page borders. 1.5 KB beat 0.5 and 4 by 3 %.
constexpr int kAhead = 1536;

HONED_INLINE void prefetch(const void* p) { __builtin_prefetch(static_cast<const char*>(p) + kAhead); }

// out[m][c] = sum_k x[m][k] w[k][c] for MR rows and kChannels channels of a panel
template <int MR, class W>
void float_tile(const W* w, int64_t k, const float* x, int64_t x_stride, float* out) {
  constexpr int kUnroll = MR == 1 ? 4 : MR == 2 ? 2 : 1;  // independent sums hide the FMA latency
  vf sum[kUnroll][MR][kWide];
  for (int u = 0; u < kUnroll; ++u)
    for (int m = 0; m < MR; ++m)
      for (int v = 0; v < kWide; ++v) sum[u][m][v] = zero();
  auto step = [&](int64_t i, int u) __attribute__((always_inline)) {
    vf column[kWide];
    for (int v = 0; v < kWide; ++v) column[v] = load(w + i * kPanel + v * kLanes);
    if (MR <= 2) prefetch(w + i * kPanel);
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
      store(out + m * kPanel + v * kLanes, total);
    }
}

HONED_INLINE int32_t load_quad(const int8_t* p) {
  int32_t quad;
  __builtin_memcpy(&quad, p, 4);
  return quad;
}

// The same for int8 or int4 weights and quantised rows. w points to the panel, `first` is the tile's
// first channel in it.
template <int MR, bool kInt4>
void int_tile(const LinearArgs& a, const uint8_t* w, int first, int64_t row, float* out) {
  const PackedView& p = a.w;
  const int64_t groups = p.k_padded / p.group;
  const int8_t* q = a.rows.q + row * p.k_padded;
  const float* scale = a.rows.scale + row * groups;
  const int32_t* q_sum = a.rows.sum + row * groups;
  vf sum[MR][kWide];
  for (int m = 0; m < MR; ++m)
    for (int v = 0; v < kWide; ++v) sum[m][v] = zero();
  for (int64_t g = 0; g < groups; ++g) {
    vi part[MR][kWide];
    for (int m = 0; m < MR; ++m)
      for (int v = 0; v < kWide; ++v)  // int8 bytes are w + 128
        part[m][v] = set1_int(kInt4 ? 0 : -128 * q_sum[m * groups + g]);
    const uint8_t* quads = kInt4 ? w + kPanel * 4 : w;
    for (int i = 0; i < p.group; i += 8) {
      vi low[kWide], high[kWide];
      for (int v = 0; v < kWide; ++v) {
        const uint8_t* at = quads + (first + v * kLanes) * 4;
        if (MR <= 2) prefetch(at);
        if constexpr (kInt4) {
          vi both = load_int(at);
          low[v] = low_nibbles(both);
          high[v] = high_nibbles(both);
        } else {
          low[v] = load_int(at);
          high[v] = load_int(at + kPanel * 4);
          if (MR <= 2) prefetch(at + kPanel * 4);
        }
      }
      quads += kPanel * (kInt4 ? 4 : 8);
      for (int m = 0; m < MR; ++m) {
        const int8_t* x = q + m * p.k_padded + g * p.group + i;
        vi x0 = set1_int(load_quad(x)), x1 = set1_int(load_quad(x + 4));
        for (int v = 0; v < kWide; ++v) {
          part[m][v] = dot4(part[m][v], low[v], x0);
          part[m][v] = dot4(part[m][v], high[v], x1);
        }
      }
    }
    vf step[kWide], low[kWide];
    if constexpr (kInt4)
      for (int v = 0; v < kWide; ++v) {
        const f16* steps = reinterpret_cast<const f16*>(w) + first + v * kLanes;
        step[v] = load(steps);
        low[v] = load(steps + kPanel);
      }
    for (int m = 0; m < MR; ++m) {
      float s = scale[m * groups + g];
      vf all = set1(s), total = set1(s * float(q_sum[m * groups + g]));
      for (int v = 0; v < kWide; ++v) {
        vf product = to_float(part[m][v]);
        if constexpr (kInt4) sum[m][v] = fmadd(total, low[v], sum[m][v]);
        sum[m][v] = fmadd(kInt4 ? product * step[v] : product, all, sum[m][v]);
      }
    }
    w = quads;
  }
  for (int m = 0; m < MR; ++m)
    for (int v = 0; v < kWide; ++v) store(out + m * kPanel + v * kLanes, sum[m][v]);
}

template <int MR>
void tile(const LinearArgs& a, int64_t panel, int64_t row, float* out) {
  const PackedView& p = a.w;
  const uint8_t* w = p.data + panel * p.panel_bytes;
  for (int first = 0; first < kPanel; first += kChannels) {
    float* to = out + first;
    if (p.kind == WeightKind::int8) {
      if constexpr (MR <= kIntRows) int_tile<MR, false>(a, w, first, row, to);
    } else if (p.kind == WeightKind::int4) {
      if constexpr (MR <= kIntRows) int_tile<MR, true>(a, w, first, row, to);
    } else {
      const float* x = a.rows.x + row * a.rows.x_stride;
      if (p.kind == WeightKind::f32)
        float_tile<MR>(reinterpret_cast<const float*>(w) + first, p.k, x, a.rows.x_stride, to);
      else if (p.kind == WeightKind::f16)
        float_tile<MR>(reinterpret_cast<const f16*>(w) + first, p.k, x, a.rows.x_stride, to);
      else
        float_tile<MR>(reinterpret_cast<const bf16*>(w) + first, p.k, x, a.rows.x_stride, to);
    }
  }
  for (int m = 0; m < MR; ++m)
    for (int c = 0; c < kPanel; c += kLanes) {
      float* at = out + m * kPanel + c;
      vf value = load(at);
      if (p.scales) value = value * load(p.scales + panel * kPanel + c);
      if (p.bias) value = value + load(p.bias + panel * kPanel + c);
      store(at, value);
    }
}

HONED_INLINE vf activate(vf x, Activation activation) {
  switch (activation) {
    case Activation::none: return x;
    case Activation::relu: return vmax(zero(), x);
    case Activation::gelu: return vgelu(x);
    case Activation::gelu_tanh: return vgelu_tanh(x);
    case Activation::silu: return vsilu(x);
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
    const T* residual = a.residual ? static_cast<const T*>(a.residual) +
                                         (row + m) * a.residual_stride + first
                                   : nullptr;
    for_lanes(count, [&](int64_t c, int n) {
      vf value = activate(load(out + m * kPanel + c), a.activation);
      if (up) value = value * load(up + m * kPanel + c);
      if (residual) value = value + load(residual + c, n);
      store(y + c, value, n);
    });
  }
}

template <int MR>
void block(const LinearArgs& a, int64_t unit, int64_t row) {
  alignas(64) float out[2][kRows * kPanel];
  bool gated = a.w.gated;
  tile<MR>(a, gated ? 2 * unit : unit, row, out[0]);
  if (gated) tile<MR>(a, 2 * unit + 1, row, out[1]);
  visit_float(a.dtype, [&](auto t) {
    finish<typename decltype(t)::type>(a, unit, row, MR, out[0], gated ? out[1] : nullptr);
  });
}

}  // namespace

void linear(const LinearArgs& a, int64_t begin, int64_t end) {
  const int most = a.w.kind >= WeightKind::int8 ? kIntRows : kRows;
  for (int64_t unit = begin; unit < end; ++unit)
    for (int64_t row = 0; row < a.m;) {
      int64_t left = a.m - row;
      if (left >= most) {
        most == kRows ? block<kRows>(a, unit, row) : block<kIntRows>(a, unit, row);
        row += most;
      } else if (left >= 8) {
        block<8>(a, unit, row);
        row += 8;
      } else if (left >= 4) {
        block<4>(a, unit, row);
        row += 4;
      } else if (left >= 2) {
        block<2>(a, unit, row);
        row += 2;
      } else {
        block<1>(a, unit, row);
        row += 1;
      }
    }
}

HONED_END_LEVEL
