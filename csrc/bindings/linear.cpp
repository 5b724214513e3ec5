// honed._core.linear
#include "ops/linear.h"

#include <pybind11/stl.h>

#include <algorithm>

#include "bindings/activation.h"
#include "bindings/caster.h"
#include "bindings/function.h"
#include "bindings/product.h"
#include "bindings/torch_library.h"
#include "core/check.h"
#include "ops/_product_rate.h"
#include "ops/matmul.h"
#include "ops/quantize_weight.h"

namespace honed::bindings {

template <>
struct FromPython<const PackedWeight&> {
  const PackedWeight* weight = nullptr;
  bool take(PyObject* object) {
    static const py::handle type = py::type::of<PackedWeight>().release();
    if (reinterpret_cast<PyObject*>(Py_TYPE(object)) == type.ptr())
      weight = py::handle(object).cast<const PackedWeight*>();
    return weight != nullptr;
  }
  const PackedWeight& get() const { return *weight; }
};

Activation activation_of(const std::string& name) {
  if (name == "none") return Activation::none;
  if (name == "relu") return Activation::relu;
  if (name == "relu6") return Activation::relu6;
  if (name == "gelu") return Activation::gelu;
  if (name == "gelu_tanh") return Activation::gelu_tanh;
  if (name == "silu") return Activation::silu;
  raise<ValueError>("linear: activation is '", name,
                    "', expected none, relu, relu6, gelu, gelu_tanh or silu");
}

namespace {

// input as rows times a weight with n outputs into y; multiply(y, x, epilogue) on 2-D views.
struct Product {
  const TensorView& input;
  Activation activation;
  const TensorView* residual;
  double scale;
  const TensorView *left, *right;
  const TensorView* bias;
  bool half_sums = false;
};

struct Shape {
  int64_t sizes[kMaxDims];
  int ndim;
  std::span<const int64_t> span() const { return {sizes, size_t(ndim)}; }
};

Shape shape_of_product(const TensorView& input, int64_t n) {
  HONED_CHECK(input.ndim > 0, "linear: input has no dimensions, expected at least 1");
  Shape shape{{}, input.ndim};
  std::copy(input.shape, input.shape + input.ndim, shape.sizes);
  shape.sizes[input.ndim - 1] = n;
  return shape;
}

// any_strides: multiply takes matrices as they lie, else rows of unit stride.
template <class F>
void rows_times(const TensorView& out, const Product& p, bool any_strides, F&& multiply) {
  Epilogue epilogue;
  epilogue.scale = p.scale;
  epilogue.activation = p.activation;
  epilogue.half_sums = p.half_sums;
  Rows y(out);
  std::optional<Rows> rows, added, left;
  auto matrix = [&](const TensorView& t, std::optional<Rows>& made) -> const TensorView& {
    return any_strides && t.ndim == 2 ? t : made.emplace(t).view();
  };
  std::optional<Dense> bias;
  if (p.residual) {
    HONED_CHECK(same_shape(*p.residual, out), "linear: residual has shape ", shape_of(*p.residual),
                ", expected ", shape_of(out));
    HONED_CHECK_TYPE(p.residual->dtype == out.dtype, "linear: residual is ",
                     name_of(p.residual->dtype), " and input is ", name_of(out.dtype),
                     ", expected the same type");
    epilogue.residual = &matrix(*p.residual, added);
  }
  if (p.left) {
    epilogue.left = &matrix(*p.left, left);
    epilogue.right = p.right;
  }
  if (p.bias) {
    HONED_CHECK(p.bias->ndim == 1 && p.bias->shape[0] == out.size(-1), "linear: bias has shape ",
                shape_of(*p.bias), ", expected [", out.size(-1), "]");
    HONED_CHECK_TYPE(p.bias->dtype == out.dtype, "linear: bias is ", name_of(p.bias->dtype),
                     " and input is ", name_of(out.dtype), ", expected the same type");
    epilogue.bias = bias.emplace(*p.bias).view();
  }
  multiply(y.view(), matrix(p.input, rows), epilogue);
}

// The product with a plain weight (N, K).
void times_plain(const TensorView& out, const Product& p, const TensorView& weight) {
  HONED_CHECK_TYPE(
      out.dtype != DType::f64 || p.activation <= Activation::relu6,
      "linear: input is float64, expected an activation of none, relu or relu6 with it");
  TensorView turned = weight;
  std::swap(turned.shape[0], turned.shape[1]);
  std::swap(turned.strides[0], turned.strides[1]);
  rows_times(out, p, true, [&](const TensorView& y, const TensorView& x, const Epilogue& epilogue) {
    matmul(y, x, turned, epilogue);
  });
}

void check_plain(const TensorView& weight) {
  HONED_CHECK(weight.ndim == 2, "linear: weight has shape ", shape_of(weight),
              ", expected 2 dimensions");
}

const TensorView* view_of(const OptionalTensor& tensor) {
  return tensor ? &tensor->view() : nullptr;
}

Product product_of(const Tensor& input, const std::string& activation,
                   const OptionalTensor& residual, double scale, const OptionalPair& plus,
                   const OptionalTensor& bias) {
  require_cpu("linear", {&input, residual ? &*residual : nullptr, plus ? &plus->first : nullptr,
                         plus ? &plus->second : nullptr, bias ? &*bias : nullptr});
  return {input.view(),
          activation_of(activation),
          view_of(residual),
          scale,
          plus ? &plus->first.view() : nullptr,
          plus ? &plus->second.view() : nullptr,
          view_of(bias)};
}

py::object packed(const Tensor& input, const PackedWeight& weight, const Product& p) {
  NewTensor out =
      empty(input, shape_of_product(input.view(), weight.view().n).span(), input->dtype);
  {
    py::gil_scoped_release released;
    rows_times(out.view, p, false,
               [&](const TensorView& y, const TensorView& x, const Epilogue& epilogue) {
                 linear(y, x, weight.view(), epilogue);
               });
  }
  return out.object;
}

py::object packed(const Tensor& input, const PackedWeight& weight, const std::string& activation,
                  const OptionalTensor& residual, double scale, const OptionalPair& plus,
                  bool half_sums) {
  Product p = product_of(input, activation, residual, scale, plus, {});
  p.half_sums = half_sums;
  return packed(input, weight, p);
}

PyTypeObject* packed_type() {
  static PyTypeObject* type =
      reinterpret_cast<PyTypeObject*>(py::type::of<PackedWeight>().release().ptr());
  return type;
}

py::object plain(const Tensor& input, const Tensor& weight, const Product& p) {
  check_plain(weight.view());
  NewTensor out =
      empty(input, shape_of_product(input.view(), weight->shape[0]).span(), input->dtype);
  {
    py::gil_scoped_release released;
    times_plain(out.view, p, weight.view());
  }
  return out.object;
}

py::object plain(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                 const std::string& activation, const OptionalTensor& residual, double scale,
                 const OptionalPair& plus) {
  require_cpu("linear", {&weight});
  return plain(input, weight, product_of(input, activation, residual, scale, plus, bias));
}

// input, weight, bias, residual, activation, scale
PyObject* linear_at_once(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 6) {
    PyErr_SetString(PyExc_TypeError, "linear_at_once: expected 6 arguments");
    return nullptr;
  }
  static PyObject* none = PyUnicode_InternFromString("none");
  const PackedWeight* weight = nullptr;
  PyObject* operands[] = {args[0], args[1], args[2], args[3]};
  if (Py_TYPE(args[1]) == packed_type()) {
    weight = py::handle(args[1]).cast<const PackedWeight*>();
    operands[1] = Py_None;
    if (args[2] != Py_None) Py_RETURN_NOTIMPLEMENTED;
  }
  return at_once<4>(operands, [&](const Tensor* t) -> py::object {
    Activation activation =
        args[4] == none ? Activation::none : activation_of(py::handle(args[4]).cast<std::string>());
    if (weight) {
      if (t[0]->dtype == DType::f64) return py::reinterpret_borrow<py::object>(Py_NotImplemented);
      double scale = PyFloat_AsDouble(args[5]);
      if (scale == -1 && PyErr_Occurred()) throw py::error_already_set();
      return packed(t[0], *weight,
                    {t[0].view(), activation, t[3].object() ? &t[3].view() : nullptr, scale,
                     nullptr, nullptr, nullptr});
    }
    if (t[1]->ndim != 2 || (t[0]->dtype == DType::f64 && activation > Activation::relu6))
      return py::reinterpret_borrow<py::object>(Py_NotImplemented);
    double scale = PyFloat_AsDouble(args[5]);
    if (scale == -1 && PyErr_Occurred()) throw py::error_already_set();
    Product p{t[0].view(), activation, t[3].object() ? &t[3].view() : nullptr, scale,
              nullptr,     nullptr,    t[2].object() ? &t[2].view() : nullptr};
    return plain(t[0], t[1], p);
  });
}
PyMethodDef methods[] = {
    {"linear_at_once", as_method(linear_at_once), METH_FASTCALL,
     "linear_at_once(input, weight, bias, residual, activation, scale): linear on torch tensors; "
     " None where multiplies() is 2, NotImplemented where it is 0."},
    {nullptr, nullptr, 0, nullptr}};

// The same for torch's dispatcher; the activation is its place in the enumeration.
auto dispatched(Results& results, const TensorView& x, const TensorView& w, const TensorView* bias,
                int64_t activation, const TensorView* residual, double scale) {
  HONED_CHECK(activation >= 0 && activation <= int(Activation::silu), "linear: activation is ",
              activation, ", expected 0 to ", int(Activation::silu));
  check_plain(w);
  TensorView out = results.make(shape_of_product(x, w.shape[0]).span(), x.dtype);
  return [=] {
    times_plain(out, {x, Activation(activation), residual, scale, nullptr, nullptr, bias}, w);
  };
}
const TorchOp op{
    "linear(Tensor input, Tensor weight, Tensor? bias, int activation, Tensor? residual, "
    "float scale) -> Tensor",
    boxed<dispatched>};

// A packed weight, for Python.
auto times_packed(Results& results, const TensorView& x, const PackedWeight& w,
                  const TensorView* residual, int64_t activation) {
  HONED_CHECK(activation >= 0 && activation <= int(Activation::silu), "linear: activation is ",
              activation, ", expected 0 to ", int(Activation::silu));
  TensorView out = results.make(shape_of_product(x, w.view().n).span(), x.dtype);
  return [=, &w] {
    rows_times(out, {x, Activation(activation), residual, 1.0, nullptr, nullptr, nullptr}, false,
               [&](const TensorView& y, const TensorView& rows, const Epilogue& epilogue) {
                 linear(y, rows, w.view(), epilogue);
               });
  };
}

}  // namespace

void bind_linear(py::module_& m) {
  PyModule_AddFunctions(m.ptr(), methods);
  m.def("linear",
        py::overload_cast<const Tensor&, const PackedWeight&, const std::string&,
                          const OptionalTensor&, double, const OptionalPair&, bool>(&packed),
        "input times a packed weight.", py::arg("input"), py::arg("weight"),
        py::arg("activation") = "none", py::arg("residual") = py::none(), py::arg("scale") = 1.0,
        py::arg("plus") = py::none(), py::arg("half_sums") = false);
  define_for_python<times_packed>(
      m,
      "linear_packed(Tensor input, PackedWeight weight, Tensor? residual, int activation) -> "
      "Tensor");
  m.def("half_sums_pay", &half_sums_pay, "True where half_sums changes the kernel of linear.");
  m.def("linear",
        py::overload_cast<const Tensor&, const Tensor&, const OptionalTensor&, const std::string&,
                          const OptionalTensor&, double, const OptionalPair&>(&plain),
        "input times the transposed weight.", py::arg("input"), py::arg("weight"),
        py::arg("bias") = py::none(), py::arg("activation") = "none",
        py::arg("residual") = py::none(), py::arg("scale") = 1.0, py::arg("plus") = py::none());
}

}  // namespace honed::bindings
