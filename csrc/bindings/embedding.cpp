// honed._core.embedding
#include "ops/embedding.h"

#include <algorithm>

#include "bindings/tensor.h"
#include "core/check.h"

namespace honed::bindings {

void bind_embedding(py::module_& m) {
  m.def(
      "embedding",
      [](const Tensor& input, const Tensor& weight) {
        require_cpu("embedding", {&input, &weight});
        HONED_CHECK(weight->ndim == 2, "embedding: weight has shape ", shape_of(weight.view()),
                    ", expected [rows, columns]");
        HONED_CHECK(input->ndim < kMaxDims, "embedding: input has ", input->ndim,
                    " dimensions, expected at most ", kMaxDims - 1);
        Dense ids(input.view());
        Rows table(weight.view());
        int64_t shape[kMaxDims];
        std::copy(input->shape, input->shape + input->ndim, shape);
        shape[input->ndim] = weight->size(1);
        NewTensor out = empty(weight, {shape, size_t(input->ndim) + 1}, weight->dtype);
        Rows y(out.view);
        {
          py::gil_scoped_release released;
          embedding(y.view(), *ids.view(), table.view());
        }
        return out.object;
      },
      "Rows of a table by number.", py::arg("input"), py::arg("weight"));
}

}  // namespace honed::bindings
