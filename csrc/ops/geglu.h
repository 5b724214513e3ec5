// y = gelu(gate) up      d_gate = g up gelu'(gate), d_up = g gelu(gate)      g: dy
//
// All (R,C) of one type, f64, f32, f16 or bf16 (ops/_pointwise.h); the backward makes both
// gradients in one pass, and gelu anew. ops/gelu.h has gelu, its `tanh` and its slope.
#pragma once
#include "core/tensor_view.h"

namespace honed {

// All are 2-D, of one shape; d_gate or d_up nullptr: not wanted.
void geglu(const TensorView& y, const TensorView& gate, const TensorView& up, bool tanh);
void geglu_backward(const TensorView* d_gate, const TensorView* d_up, const TensorView& g,
                    const TensorView& gate, const TensorView& up, bool tanh);

}  // namespace honed
