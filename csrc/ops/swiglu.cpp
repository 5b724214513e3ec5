// swiglu: checks, then the CPU table.
#include "ops/swiglu.h"

#include "cpu/dispatch.h"
#include "ops/_pointwise.h"

namespace honed {

void swiglu(const TensorView& y, const TensorView& gate, const TensorView& up) {
  run_pointwise("swiglu", cpu::kernels().swiglu, {&y}, {{"gate", &gate}, {"up", &up}}, 2);
}

void swiglu_backward(const TensorView* d_gate, const TensorView* d_up, const TensorView& g,
                     const TensorView& gate, const TensorView& up) {
  run_pointwise("swiglu_backward", cpu::kernels().swiglu_backward, {d_gate, d_up},
                {{"gate", &gate}, {"up", &up}, {"grad", &g}}, 4);
}

}  // namespace honed
