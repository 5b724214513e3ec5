// gelu: checks, then the CPU table.
#include "ops/gelu.h"

#include "cpu/dispatch.h"
#include "ops/_pointwise.h"

namespace honed {

void gelu(const TensorView& y, const TensorView& x, bool tanh) {
  run_pointwise("gelu", cpu::kernels().gelu, {&y}, {{"input", &x}}, 4, tanh);
}

void gelu_backward(const TensorView& dx, const TensorView& g, const TensorView& x, bool tanh) {
  run_pointwise("gelu_backward", cpu::kernels().gelu_backward, {&dx}, {{"input", &x}, {"grad", &g}},
                5, tanh);
}

}  // namespace honed
