// y = act(x w^T + b) + residual, panel by panel: a tile of rows times the panel's 32 channels, then
// the epilogue on the tile while it is in the first-level cache.
#include "ops/linear.h"

#include "cpu/kernels/linear_float.h"
#include "cpu/kernels/linear_grid.h"
#include "cpu/kernels/linear_int.h"
#include "cpu/simd/math.h"
#include "cpu/visit.h"

HONED_BEGIN_LEVEL

namespace {

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
      p.float_rows ? grid_panel<false, false>(a, w, row, rows, out)
                   : int_panel<false>(a, w, row, rows, out);
      break;
    case WeightKind::int4:
      p.float_rows ? grid_panel<true>(a, w, row, rows, out) : int_panel<true>(a, w, row, rows, out);
      break;
    case WeightKind::grid4:
      grid_panel<true>(a, w, row, rows, out);
      break;
    case WeightKind::grid8:
      grid_panel<false>(a, w, row, rows, out);
      break;
  }
  if (!p.scales && !p.bias && a.scale == 1.0f) return;
  for (int c = 0; c < kPanel; c += kLanes) {
    vf scale = set1(a.scale);
    if (p.scales) scale = scale * load(p.scales + panel * kPanel + c);
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
