// honed._core.silu
#include "ops/silu.h"

#include "bindings/elementwise.h"

namespace honed::bindings {

void bind_silu(py::module_& m) {
  m.def(
      "silu",
      [](const Tensor& input) {
        return elementwise("silu", input,
                           [](const TensorView& y, const TensorView& x) { silu(y, x); });
      },
      "x / (1 + e^-x)", py::arg("input"));
}

}  // namespace honed::bindings
