// honed._core.linear
#include "ops/linear.h"

#include <pybind11/stl.h>

#include "bindings/activation.h"
#include "bindings/product.h"
#include "core/check.h"
#include "ops/matmul.h"
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

// input as rows times a weight with n outputs; multiply(y, x, epilogue) on 2-D views.
template <class F>
py::object rows_times(const Tensor& input, int64_t n, const std::string& activation,
                      const OptionalTensor& residual, double scale, const OptionalPair& plus,
                      const OptionalTensor& bias, F&& multiply) {
  HONED_CHECK(input->ndim > 0, "linear: input has no dimensions, expected at least 1");
  Epilogue epilogue;
  epilogue.scale = scale;
  epilogue.activation = activation_of(activation);
  Rows x(input.view());
  int64_t shape[kMaxDims];
  std::copy(input->shape, input->shape + input->ndim, shape);
  shape[input->ndim - 1] = n;
  NewTensor out = empty(input, {shape, size_t(input->ndim)}, input->dtype);
  Rows y(out.view);
  std::optional<Rows> added;
  if (residual) {
    HONED_CHECK(same_shape(residual->view(), out.view), "linear: residual has shape ",
                shape_of(residual->view()), ", expected ", shape_of(out.view));
    added.emplace(residual->view());
    epilogue.residual = &added->view();
  }
  std::optional<Rows> left;
  if (plus) {
    left.emplace(plus->first.view());
    epilogue.left = &left->view();
    epilogue.right = &plus->second.view();
  }
  if (bias) epilogue.bias = &bias->view();
  {
    py::gil_scoped_release released;
    multiply(y.view(), x.view(), epilogue);
  }
  return out.object;
}

py::object packed(const Tensor& input, const PackedWeight& weight, const std::string& activation,
                  const OptionalTensor& residual, double scale, const OptionalPair& plus) {
  require_cpu("linear", {&input, residual ? &*residual : nullptr, plus ? &plus->first : nullptr,
                         plus ? &plus->second : nullptr});
  return rows_times(input, weight.view().n, activation, residual, scale, plus, {},
                    [&](const TensorView& y, const TensorView& x, const Epilogue& epilogue) {
                      linear(y, x, weight.view(), epilogue);
                    });
}

py::object plain(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                 const std::string& activation, const OptionalTensor& residual, double scale,
                 const OptionalPair& plus) {
  require_cpu("linear", {&input, &weight, bias ? &*bias : nullptr, residual ? &*residual : nullptr,
                         plus ? &plus->first : nullptr, plus ? &plus->second : nullptr});
  HONED_CHECK(weight->ndim == 2, "linear: weight has shape ", shape_of(weight.view()),
              ", expected 2 dimensions");
  TensorView turned = weight.view();
  std::swap(turned.shape[0], turned.shape[1]);
  std::swap(turned.strides[0], turned.strides[1]);
  return rows_times(input, weight->shape[0], activation, residual, scale, plus, bias,
                    [&](const TensorView& y, const TensorView& x, const Epilogue& epilogue) {
                      matmul(y, x, turned, epilogue);
                    });
}

}  // namespace

void bind_linear(py::module_& m) {
  m.def("linear", &packed, "input times a packed weight.", py::arg("input"), py::arg("weight"),
        py::arg("activation") = "none", py::arg("residual") = py::none(), py::arg("scale") = 1.0,
        py::arg("plus") = py::none());
  m.def("linear", &plain, "input times the transposed weight.", py::arg("input"), py::arg("weight"),
        py::arg("bias") = py::none(), py::arg("activation") = "none",
        py::arg("residual") = py::none(), py::arg("scale") = 1.0, py::arg("plus") = py::none());
}

}  // namespace honed::bindings
