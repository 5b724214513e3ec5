// honed._core.gelu
#include "ops/gelu.h"

#include "bindings/elementwise.h"

namespace honed::bindings {

void bind_gelu(py::module_& m) {
  m.def(
      "gelu",
      [](const Tensor& input, bool tanh) {
        return elementwise("gelu", input,
                           [&](const TensorView& y, const TensorView& x) { gelu(y, x, tanh); });
      },
      "x times the normal distribution function of x.", py::arg("input"), py::arg("tanh"));
}

}  // namespace honed::bindings
