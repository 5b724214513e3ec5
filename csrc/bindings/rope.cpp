// honed._core.rope
#include "ops/rope.h"

#include <pybind11/stl.h>

#include "bindings/tensor.h"
#include "core/check.h"

namespace honed::bindings {

void bind_rope(py::module_& m) {
  m.def(
      "rope",
      [](const Tensor& x, const Tensor& cos, const Tensor& sin, const OptionalTensor& positions,
         bool interleaved) {
        require_cpu("rope", {&x, &cos, &sin, positions ? &*positions : nullptr});
        // Any strides but along the last dimension; there a copy.
        std::optional<Dense> copy;
        if (x->ndim && x->size(-1) > 1 && x->stride(-1) != 1) copy.emplace(x.view());
        Dense dense_cos(cos.view()), dense_sin(sin.view()), p(positions);
        NewTensor out = empty_like(x);
        {
          py::gil_scoped_release released;
          rope(out.view, copy ? *copy->view() : x.view(), *dense_cos.view(), *dense_sin.view(),
               p.view(), interleaved);
        }
        return out.object;
      },
      "Rotates pairs of elements by an angle a position.", py::arg("x"), py::arg("cos"),
      py::arg("sin"), py::arg("positions"), py::arg("interleaved"));
}

}  // namespace honed::bindings
