// honed._core.softmax
#include "ops/softmax.h"

#include "bindings/tensor.h"
#include "core/check.h"

namespace honed::bindings {

void bind_softmax(py::module_& m) {
  m.def(
      "softmax",
      [](const Tensor& input, bool to_f32) {
        require_cpu("softmax", {&input});
        HONED_CHECK(input->ndim > 0, "softmax: input has no dimensions, expected at least 1");
        Rows x(input.view());
        NewTensor out =
            empty(input, {input->shape, size_t(input->ndim)}, to_f32 ? DType::f32 : input->dtype);
        Rows y(out.view);
        {
          py::gil_scoped_release released;
          softmax(y.view(), x.view());
        }
        return out.object;
      },
      "Softmax over the last dimension.", py::arg("input"), py::arg("to_f32"));
}

}  // namespace honed::bindings
