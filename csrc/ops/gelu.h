// y = x P(x)      dx = g (P(x) + x P'(x))      g: dy
//
// P is the standard normal distribution function, (1 + erf(x / sqrt 2)) / 2, or with `tanh` its
// approximation (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2.
//
// x, y, g and dx: (R,C) of one type, f64, f32, f16 or bf16 (ops/_pointwise.h).
#pragma once
#include "core/tensor_view.h"

namespace honed {

// All are 2-D, of one shape.
void gelu(const TensorView& y, const TensorView& x, bool tanh);
void gelu_backward(const TensorView& dx, const TensorView& g, const TensorView& x, bool tanh);

}  // namespace honed
