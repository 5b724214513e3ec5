// honed._core.layer_norm
#include "ops/layer_norm.h"

#include <pybind11/stl.h>

#include "bindings/tensor.h"
#include "core/check.h"

namespace honed::bindings {

void bind_layer_norm(py::module_& m) {
  m.def(
      "layer_norm",
      [](const Tensor& input, const OptionalTensor& weight, const OptionalTensor& bias, float eps) {
        require_cpu("layer_norm", {&input, weight ? &*weight : nullptr, bias ? &*bias : nullptr});
        HONED_CHECK(input->ndim > 0, "layer_norm: input has no dimensions, expected at least 1");
        Rows x(input.view());
        Dense w(weight), b(bias);
        NewTensor out = empty_like(input);
        Rows y(out.view);
        {
          py::gil_scoped_release released;
          layer_norm(y.view(), x.view(), w.view(), b.view(), eps);
        }
        return out.object;
      },
      "Normalises the last dimension to mean 0 and variance 1.", py::arg("input"),
      py::arg("weight"), py::arg("bias"), py::arg("eps"));
}

}  // namespace honed::bindings
