// layer_norm: checks, then the CPU table.
#include "ops/layer_norm.h"

#include "cpu/dispatch.h"

namespace honed {

void layer_norm(const TensorView& y, const TensorView& x, const TensorView* w, const TensorView* b,
                double eps) {
  check_norm("layer_norm", x, w, b);
  norm(cpu::kernels().layer_norm, {y, x, w, b}, eps, cpu::grain_for(x.size(1) / 3));
}

void layer_norm_backward(const NormGradients& t, double eps) {
  check_norm("layer_norm_backward", t.x, t.w, nullptr, &t.g);
  norm_backward(cpu::kernels().layer_norm_backward, t, eps);
}

}  // namespace honed
