// G g G^T of 32 outputs' kernels of one channel, in double.
#include "cpu/kernels/winograd_tile.h"
#include "cpu/visit.h"

HONED_BEGIN_LEVEL

namespace {

// Frequencies lie far apart, often on the same sets of a cache: their numbers are gathered in `made`
// and copied a few channels at a time.
template <class Size, class T>
void weight_item(const WinogradWeightArgs& a, int64_t panel, int64_t channel, int channels) {
  constexpr int n = Size::inputs;
  const int64_t first = panel * kPanel, left = a.outputs - first;
  const int outputs = int(left < kPanel ? left : kPanel);
  const int64_t panels = (a.outputs + kPanel - 1) / kPanel;
  alignas(64) float made[n * n][kWinogradWeights * kPanel];
  alignas(64) double kernel[3][3][kPanel] = {};
  for (int c = 0; c < channels; ++c) {
    const T* from = static_cast<const T*>(a.w) + first * a.o + (channel + c) * a.c;
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
        for (int j = 0; j < n; ++j)
          for (int l = 0; l < kDoubles; ++l) made[i * n + j][c * kPanel + o + l] = float(u[j][l]);
      }
    }
  }
  for (int f = 0; f < n * n; ++f) {
    float* to = a.to + ((f * panels + panel) * a.channels + channel) * kPanel;
    for (int i = 0; i < channels * kPanel; i += kLanes) store(to + i, load(&made[f][i]));
  }
}

}  // namespace

void winograd_weight(const WinogradWeightArgs& a, int64_t begin, int64_t end) {
  const int64_t groups = (a.channels + kWinogradWeights - 1) / kWinogradWeights;
  with_tile(a.tile, [&](auto size) {
    visit_float(a.dtype, [&](auto type) {
      for (int64_t item = begin; item < end; ++item) {
        const int64_t channel = item % groups * kWinogradWeights, left = a.channels - channel;
        weight_item<decltype(size), typename decltype(type)::type>(
            a, item / groups, channel, int(left < kWinogradWeights ? left : kWinogradWeights));
      }
    });
  });
}

HONED_END_LEVEL
