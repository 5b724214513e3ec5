// honed._core.rms_norm
#include "ops/rms_norm.h"

#include <pybind11/stl.h>

#include "bindings/tensor.h"
#include "core/check.h"

namespace honed::bindings {

void bind_rms_norm(py::module_& m) {
  m.def(
      "rms_norm",
      [](const Tensor& input, const OptionalTensor& weight, float eps) {
        require_cpu("rms_norm", {&input, weight ? &*weight : nullptr});
        HONED_CHECK(input->ndim > 0, "rms_norm: input has no dimensions, expected at least 1");
        Rows x(input.view());
        Dense w(weight);
        NewTensor out = empty_like(input);
        Rows y(out.view);
        {
          py::gil_scoped_release released;
          rms_norm(y.view(), x.view(), w.view(), eps);
        }
        return out.object;
      },
      "Normalises the last dimension by its root mean square.", py::arg("input"), py::arg("weight"),
      py::arg("eps"));
}

}  // namespace honed::bindings
