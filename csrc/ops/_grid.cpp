// The step of a group follows from its extremes: quantisers put one of them on the last code.
#include "ops/_grid.h"

#include <algorithm>
#include <cmath>

namespace honed {

namespace {

bool on_grid(const float* w, int count, float step, float low, int least, int most,
             GridGroup* group) {
  group->step = to_f16(step);
  group->low = to_f16(low);
  step = to_float(group->step);
  low = to_float(group->low);
  for (int i = 0; i < count; ++i) {
    float code = step != 0 ? std::nearbyint((w[i] - low) / step) : 0.0f;
    if (!(code >= float(least) && code <= float(most))) return false;
    group->codes[i] = int(code);
    if (std::fma(step, code, low) != w[i]) return false;
  }
  return true;
}

float extreme(const float* w, int count) {
  return *std::max_element(w, w + count,
                           [](float a, float b) { return std::fabs(a) < std::fabs(b); });
}

bool fit_grid4(const float* w, int count, GridGroup* group) {
  auto [least, most] = std::minmax_element(w, w + count);
  if (on_grid(w, count, (*most - *least) / 15, *least, 0, 15, group)) return true;
  float top = extreme(w, count);  // symmetric grids have it at -8
  return on_grid(w, count, -top / 8, top, 0, 15, group);
}

bool fit_grid8(const float* w, int count, GridGroup* group) {
  float top = extreme(w, count);
  return on_grid(w, count, top / 127, 0, -128, 127, group) ||
         on_grid(w, count, -top / 128, 0, -128, 127, group);
}

}  // namespace

bool fit_grid(WeightKind kind, const float* w, int count, GridGroup* group) {
  return kind == WeightKind::grid4 ? fit_grid4(w, count, group) : fit_grid8(w, count, group);
}

}  // namespace honed
