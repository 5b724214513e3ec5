// relu: checks, then the CPU table.
#include "ops/relu.h"

#include "cpu/dispatch.h"
#include "ops/_pointwise.h"

namespace honed {

void relu(const TensorView& y, const TensorView& x) {
  run_pointwise("relu", cpu::kernels().relu, {&y}, {{"input", &x}}, 1);
}

void relu_backward(const TensorView& dx, const TensorView& g, const TensorView& y) {
  run_pointwise("relu_backward", cpu::kernels().relu_backward, {&dx},
                {{"result", &y}, {"grad", &g}}, 1);
}

}  // namespace honed
