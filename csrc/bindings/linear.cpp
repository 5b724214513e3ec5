// honed._core.linear
#include "ops/linear.h"

#include <pybind11/stl.h>

#include "bindings/activation.h"
#include "bindings/tensor.h"
#include "core/check.h"
#include "ops/quantize_weight.h"

namespace honed::bindings {

Activation activation_of(const std::string& name) {
  if (name == "none") return Activation::none;
  if (name == "relu") return Activation::relu;
  if (name == "gelu") return Activation::gelu;
  if (name == "gelu_tanh") return Activation::gelu_tanh;
  if (name == "silu") return Activation::silu;
  raise<ValueError>("linear: activation is '", name,
                    "', expected none, relu, gelu, gelu_tanh or silu");
}

namespace {

py::object run(const Tensor& input, const PackedWeight& weight, const std::string& activation,
               const OptionalTensor& residual) {
  require_cpu("linear", {&input, residual ? &*residual : nullptr});
  HONED_CHECK(input->ndim > 0, "linear: input has no dimensions, expected at least 1");
  Activation act = activation_of(activation);
  Rows x(input.view());
  int64_t shape[kMaxDims];
  std::copy(input->shape, input->shape + input->ndim, shape);
  shape[input->ndim - 1] = weight.view().n;
  NewTensor out = empty(input, {shape, size_t(input->ndim)}, input->dtype);
  Rows y(out.view);
  std::optional<Rows> added;
  if (residual) {
    HONED_CHECK(same_shape(residual->view(), out.view), "linear: residual has shape ",
                shape_of(residual->view()), ", expected ", shape_of(out.view));
    added.emplace(residual->view());
  }
  {
    py::gil_scoped_release released;
    linear(y.view(), x.view(), weight.view(), act, added ? &added->view() : nullptr);
  }
  return out.object;
}

}  // namespace

void bind_linear(py::module_& m) {
  m.def("linear", &run, "input times a packed weight.", py::arg("input"), py::arg("weight"),
        py::arg("activation") = "none", py::arg("residual") = py::none());
}

}  // namespace honed::bindings
