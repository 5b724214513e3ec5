// rms_norm: checks, then the CPU table.
#include "ops/rms_norm.h"

#include "cpu/dispatch.h"

namespace honed {

void rms_norm(const TensorView& y, const TensorView& x, const TensorView* w, double eps) {
  check_norm("rms_norm", x, w, nullptr);
  norm(cpu::kernels().rms_norm, {y, x, w, nullptr}, eps, cpu::grain_for(x.size(1) / 4));
}

void rms_norm_backward(const TensorView* dx, const TensorView* dw, const TensorView& g,
                       const TensorView& x, const TensorView* w, double eps) {
  check_norm("rms_norm_backward", x, w, nullptr, &g);
  norm_backward(cpu::kernels().rms_norm_backward, {dx, dw, nullptr, g, x, w}, eps);
}

}  // namespace honed
