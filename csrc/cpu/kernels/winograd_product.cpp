// A block of tiles times the weights of a frequency, a panel at a time.
#include "cpu/kernels/linear_float.h"
#include "ops/_winograd.h"

HONED_BEGIN_LEVEL

void winograd_product(const WinogradArgs& a, int64_t begin, int64_t end) {
  for (int64_t item = begin; item < end; ++item) {
    const int64_t frequency = item / a.group, place = item % a.group, panel = a.panel + place;
    const int64_t left = a.outputs - panel * kPanel;
    float_panel(a.u + (frequency * a.panels + panel) * a.channels * kPanel, a.channels,
                static_cast<const float*>(a.v + frequency * a.v_step), a.v_row, int(a.count),
                int(left < kPanel ? left : kPanel), false,
                a.m + frequency * a.m_step + place * a.count * kPanel);
  }
}

HONED_END_LEVEL
