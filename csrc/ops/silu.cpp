// silu: checks, then the CPU table.
#include "ops/silu.h"

#include "cpu/dispatch.h"
#include "ops/_pointwise.h"

namespace honed {

void silu(const TensorView& y, const TensorView& x) {
  run_pointwise("silu", cpu::kernels().silu, {&y}, {{"input", &x}}, 2);
}

void silu_backward(const TensorView& dx, const TensorView& g, const TensorView& x) {
  run_pointwise("silu_backward", cpu::kernels().silu_backward, {&dx}, {{"input", &x}, {"grad", &g}},
                3);
}

}  // namespace honed
