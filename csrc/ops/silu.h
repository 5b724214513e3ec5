// y = x s      dx = g s (1 + x (1 - s))      s = 1 / (1 + e^-x), g: dy
//
// x, y, g and dx: (R,C) of one type, f64, f32, f16 or bf16 (ops/_pointwise.h).
#pragma once
#include "core/tensor_view.h"

namespace honed {

// All are 2-D, of one shape.
void silu(const TensorView& y, const TensorView& x);
void silu_backward(const TensorView& dx, const TensorView& g, const TensorView& x);

}  // namespace honed
