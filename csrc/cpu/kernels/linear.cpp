// y = act(x w^T + b) + residual, a block of rows and a panel at a time: tiles of rows times the
// panel's 32 channels, then the epilogue while the sums are in the first two caches.
#include "ops/linear.h"

#include "cpu/kernels/linear_amx.h"
#include "cpu/kernels/linear_float.h"
#include "cpu/kernels/linear_grid.h"
#include "cpu/kernels/linear_half.h"
#include "cpu/kernels/linear_int.h"
#include "cpu/kernels/linear_pairs.h"
#include "cpu/kernels/product_finish.h"

HONED_BEGIN_LEVEL

namespace {

template <class S>
const S* row_of(const LinearRows& rows, int64_t row) {
  return static_cast<const S*>(rows.x) + row * rows.x_stride;
}

// The products of `rows` rows with a panel, scaled, with the second product and the bias added.
void panel_product(const LinearArgs& a, int64_t panel, int64_t row, int rows, int channels,
                   double* out, const Straight*) {
  auto times = [&](const PackedView& w, const LinearRows& x, bool add) {
    const auto* p = reinterpret_cast<const double*>(w.data + panel * w.panel_bytes);
    float_panel(p, w.k, row_of<double>(x, row), x.x_stride, rows, channels, add, out);
  };
  const double* bias = static_cast<const double*>(a.to.bias);
  if (bias) bias += panel * kPanel;
  times(a.w, a.rows, false);
  if (!a.plus) return scale_and_bias(a.to, row, rows, nullptr, bias, out);
  scale_and_bias<double>(a.to, row, rows, nullptr, bias, out);
  times(*a.plus, a.plus_rows, true);
}

// straight: the product is finished there.
void panel_product(const LinearArgs& a, int64_t panel, int64_t row, int rows, int channels,
                   float* out, const Straight* straight) {
  const PackedView& p = a.w;
  const uint8_t* w = p.data + panel * p.panel_bytes;
  auto times = [&](const auto* weights) {
    float_panel(weights, p.k, row_of<float>(a.rows, row), a.rows.x_stride, rows, channels, false,
                out, straight);
  };
  switch (p.kind) {
    case WeightKind::f64:
      break;
    case WeightKind::f32:
      times(reinterpret_cast<const float*>(w));
      break;
    case WeightKind::f16:
#ifdef __AVX512FP16__
      if (a.rows.way == Way::halves) {
        half_panel(reinterpret_cast<const f16*>(w), p.k, row_of<f16>(a.rows, row), a.rows.x_stride,
                   rows, out);
        break;
      }
#endif
      times(reinterpret_cast<const f16*>(w));
      break;
    case WeightKind::bf16:
#ifdef HONED_TILES
      if (a.rows.way == Way::tiles) {
        pairs_tiles(reinterpret_cast<const Pair*>(w), p.k, row_of<bf16>(a.rows, row),
                    a.rows.x_stride, rows, out);
        break;
      }
#endif
#ifdef __AVX512BF16__
      if (a.rows.way == Way::dots) {
        pairs_panel(reinterpret_cast<const Pair*>(w), p.k, row_of<bf16>(a.rows, row),
                    a.rows.x_stride, rows, channels, out);
        break;
      }
#endif
      times(reinterpret_cast<const Pair*>(w));
      break;
    case WeightKind::int8:
#ifdef HONED_TILES
      if (a.rows.way == Way::tiles) {
        int8_tiles(a, w, row, rows, out);
        break;
      }
#endif
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
  if (straight) return;
  const float* bias = static_cast<const float*>(a.to.bias);
  if (bias) bias += panel * kPanel;
  scale_and_bias(a.to, row, rows, p.scales ? p.scales + panel * kPanel : nullptr, bias, out);
  if (a.plus)
    float_panel(reinterpret_cast<const float*>(a.plus->data + panel * a.plus->panel_bytes),
                a.plus->k, row_of<float>(a.plus_rows, row), a.plus_rows.x_stride, rows, channels,
                true, out);
}

// Whether float tiles can finish their sums themselves.
bool goes_straight(const LinearArgs& a, int64_t unit, int64_t row, int channels,
                   Straight* straight) {
  const WeightKind kind = a.w.kind;
  if (a.w.gated || a.plus || a.w.scales || a.rows.way != Way::plain) return false;
  if (kind != WeightKind::f32 && kind != WeightKind::f16 && kind != WeightKind::bf16) return false;
  const float* bias = static_cast<const float*>(a.to.bias);
  return goes_straight(a.to, row, unit * kPanel, channels, bias ? bias + unit * kPanel : nullptr,
                       straight);
}

template <class S>
void block(const LinearArgs& a, int64_t unit, int64_t row, int rows) {
  alignas(64) S out[2][kBlockRows * kPanel];
  const int64_t first = unit * kPanel, left = a.w.n - first;
  const int channels = int(left < kPanel ? left : kPanel);
  Straight straight;
  if (goes_straight(a, unit, row, channels, &straight))
    return panel_product(a, unit, row, rows, channels, out[0], &straight);
  panel_product(a, a.w.gated ? 2 * unit : unit, row, rows, channels, out[0], nullptr);
  if (a.w.gated) panel_product(a, 2 * unit + 1, row, rows, channels, out[1], nullptr);
  finish_any<S>(a.to, row, rows, first, channels, out[0], a.w.gated ? out[1] : nullptr);
}

}  // namespace

void linear(const LinearArgs& a, int64_t begin, int64_t end) {
  const int64_t units = a.w.gated ? a.w.panels / 2 : a.w.panels;
  const int64_t blocks = (a.m + kBlockRows - 1) / kBlockRows, tiles = (a.m + kRows - 1) / kRows;
#ifdef HONED_TILES
  const bool by_tiles = a.rows.way == Way::tiles && begin < end;
  if (by_tiles) configure_tiles(tile_rows(a.m));
#endif
  for (int64_t item = begin; item < end; ++item) {
    int64_t b = item / units, unit = item % units;
    int64_t row = tiles * b / blocks * kRows, stop = tiles * (b + 1) / blocks * kRows;
    int rows = int((stop < a.m ? stop : a.m) - row);
    if (a.w.kind == WeightKind::f64)
      block<double>(a, unit, row, rows);
    else
      block<float>(a, unit, row, rows);
  }
#ifdef HONED_TILES
  if (by_tiles) release_tiles();
#endif
}

HONED_END_LEVEL
