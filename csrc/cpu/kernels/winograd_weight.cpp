// G g G^T of 32 outputs' kernels of one channel, in double.
#include "cpu/kernels/winograd_tile.h"
#include "cpu/visit.h"

HONED_BEGIN_LEVEL

namespace {

template <class Size, class T>
void weight_item(const WinogradWeightArgs& a, int64_t panel, int64_t channel) {
  constexpr int n = Size::inputs;
  const int64_t first = panel * kPanel, left = a.outputs - first;
  const int outputs = int(left < kPanel ? left : kPanel);
  const int64_t panels = (a.outputs + kPanel - 1) / kPanel;
  alignas(64) double kernel[3][3][kPanel] = {};
  const T* from = static_cast<const T*>(a.w) + first * a.o + channel * a.c;
  for (int o = 0; o < outputs; ++o)
    for (int i = 0; i < 3; ++i)
      for (int j = 0; j < 3; ++j)
        kernel[i][j][o] = double(scalar(from[o * a.o + i * a.h + j * a.w_step]));
  for (int o = 0; o < kPanel; o += kDoubles) {
    vd half[n][3];
    for (int j = 0; j < 3; ++j) {
      vd g[3], u[n];
      for (int i = 0; i < 3; ++i) g[i] = load(&kernel[i][j][o]);
      weight_line(g, u);
      for (int i = 0; i < n; ++i) half[i][j] = u[i];
    }
    for (int i = 0; i < n; ++i) {
      vd u[n];
      weight_line(half[i], u);
      for (int j = 0; j < n; ++j) {
        float* to = a.to + (((i * n + j) * panels + panel) * a.channels + channel) * kPanel + o;
        for (int l = 0; l < kDoubles; ++l) to[l] = float(u[j][l]);
      }
    }
  }
}

}  // namespace

void winograd_weight(const WinogradWeightArgs& a, int64_t begin, int64_t end) {
  with_tile(a.tile, [&](auto size) {
    visit_float(a.dtype, [&](auto type) {
      for (int64_t item = begin; item < end; ++item)
        weight_item<decltype(size), typename decltype(type)::type>(a, item / a.channels,
                                                                   item % a.channels);
    });
  });
}

HONED_END_LEVEL
