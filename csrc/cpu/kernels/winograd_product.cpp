// A block of tiles times the weights of a frequency, a panel at a time.
#include "cpu/kernels/linear_float.h"
#include "ops/_winograd.h"

HONED_BEGIN_LEVEL

namespace {

constexpr int kChunk = 64;

}  // namespace

void winograd_product(const WinogradArgs& a, int64_t begin, int64_t end) {
  for (int64_t item = begin; item < end; ++item) {
    const int64_t frequency = item / a.group, place = item % a.group, panel = a.panel + place;
    const int64_t left = a.outputs - panel * kPanel;
    const int channels = int(left < kPanel ? left : kPanel);
    const float* w = a.u + (frequency * a.panels + panel) * a.channels * kPanel;
    const float* v = a.v + frequency * a.v_step;
    float* m = a.m + frequency * a.m_step + place * a.count * kPanel;
    for_chunks(a.channels, kChunk, [&](int64_t at, int64_t count) {
      float_tiles<kRows>(w + at * kPanel, kPanel, count, v + at, a.v_row, 1, int(a.count), channels,
                         at > 0, m);
    });
  }
}

HONED_END_LEVEL
