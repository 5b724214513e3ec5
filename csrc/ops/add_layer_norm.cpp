// add_layer_norm: checks, then the CPU table.
#include "ops/add_layer_norm.h"

#include "core/check.h"
#include "cpu/dispatch.h"

namespace honed {

void add_layer_norm(const NormTensors& t, double eps) {
  check_norm("add_layer_norm", t.x, t.w, t.b);
  HONED_CHECK_TYPE(t.add->dtype == t.x.dtype, "add_layer_norm: residual is ", name_of(t.add->dtype),
                   ", expected input's type, ", name_of(t.x.dtype));
  norm(cpu::kernels().add_layer_norm, t, eps, cpu::grain_for(t.x.size(1) / 2));
}

void add_layer_norm_backward(const NormGradients& t, double eps) {
  check_norm("add_layer_norm_backward", t.x, t.w, nullptr, &t.g);
  if (t.g_sum) check_norm("add_layer_norm_backward", t.x, nullptr, nullptr, t.g_sum);
  norm_backward(cpu::kernels().layer_norm_backward, t, eps);
}

}  // namespace honed
