// y = silu(gate) up      d_gate = g up silu'(gate), d_up = g silu(gate)      g: dy
//
// All (R,C) of one type, f64, f32, f16 or bf16 (ops/_pointwise.h); the backward makes both
// gradients in one pass, and silu anew. ops/silu.h has silu and its slope.
#pragma once
#include "core/tensor_view.h"

namespace honed {

// All are 2-D, of one shape; d_gate or d_up nullptr: not wanted.
void swiglu(const TensorView& y, const TensorView& gate, const TensorView& up);
void swiglu_backward(const TensorView* d_gate, const TensorView* d_up, const TensorView& g,
                     const TensorView& gate, const TensorView& up);

}  // namespace honed
