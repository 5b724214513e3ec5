// geglu: checks, then the CPU table.
#include "ops/geglu.h"

#include "cpu/dispatch.h"
#include "ops/_pointwise.h"

namespace honed {

void geglu(const TensorView& y, const TensorView& gate, const TensorView& up, bool tanh) {
  run_pointwise("geglu", cpu::kernels().geglu, {&y}, {{"gate", &gate}, {"up", &up}}, 4, tanh);
}

void geglu_backward(const TensorView* d_gate, const TensorView* d_up, const TensorView& g,
                    const TensorView& gate, const TensorView& up, bool tanh) {
  run_pointwise("geglu_backward", cpu::kernels().geglu_backward, {d_gate, d_up},
                {{"gate", &gate}, {"up", &up}, {"grad", &g}}, 6, tanh);
}

}  // namespace honed
