// y = max(x, 0)      dx = g where y > 0, else 0      g: dy
//
// A NaN stays one, and passes its gradient. x, y, g and dx: (R,C) of one type, f64, f32, f16 or
// bf16 (ops/_pointwise.h).
#pragma once
#include "core/tensor_view.h"

namespace honed {

// All are 2-D, of one shape.
void relu(const TensorView& y, const TensorView& x);
void relu_backward(const TensorView& dx, const TensorView& g, const TensorView& y);

}  // namespace honed
