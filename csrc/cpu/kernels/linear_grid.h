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

// Few rows open small chunks, which stay in the first cache; many rows a whole one.
template <bool kFour, bool kSteps = true>
void grid_panel(const LinearArgs& a, const uint8_t* w, int64_t row, int rows, float* out) {
  alignas(64) float wide[kDepth * kPanel];
  const PackedView& p = a.w;
  const int64_t groups = p.k_padded / p.group, most = (rows < kRows ? 64 : kDepth) / p.group;
  const int64_t group_bytes = kPanel * (kFour ? 4 + p.group / 2 : kSteps * 2 + p.group);
  const float* x = static_cast<const float*>(a.rows.x) + row * a.rows.x_stride;
  for (int64_t g = 0; g < groups || g == 0; g += most) {
    int64_t here = groups - g < most ? groups - g : most, k = g * p.group;
    int64_t count = p.k - k < here * p.group ? p.k - k : here * p.group;
    open_grid<kFour, kSteps>(w + g * group_bytes, here, p.group, wide);
    float_tiles<kRows, float, float>(wide, kPanel, count, x + k, a.rows.x_stride, 1, rows, k > 0,
                                     out);
  }
}

}  // namespace
HONED_END_LEVEL
