// Weights that lie on a grid: found, and written as codes.
#pragma once
#include "ops/linear.h"

namespace honed {

inline constexpr int kGridGroup = 32;

// A group of at most 32 inputs of one channel.
struct GridGroup {
  f16 step, low;  // w = step * q + low; grid8: low is 0
  int codes[kGridGroup];
};

// True where every w[i] is exactly a grid value, which is then in `group`.
// grid4: q in [0, 15]; grid8: q in [-128, 127].
bool fit_grid(WeightKind kind, const float* w, int count, GridGroup* group);

}  // namespace honed
