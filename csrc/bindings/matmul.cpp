// honed._core.matmul
#include "ops/matmul.h"

#include <pybind11/stl.h>

#include <algorithm>

#include "bindings/caster.h"
#include "bindings/product.h"
#include "bindings/torch_library.h"
#include "core/check.h"

namespace honed::bindings {

namespace {

// A vector as a matrix: one row on the left, one column on the right.
TensorView as_matrix(const TensorView& t, bool left) {
  if (t.ndim != 1) return t;
  TensorView matrix = t;
  matrix.ndim = 2;
  matrix.shape[left] = t.shape[0];
  matrix.strides[left] = t.strides[0];
  matrix.shape[!left] = 1;
  matrix.strides[!left] = 0;
  return matrix;
}

// The same with the leading dimensions of `shape`, repeated where the tensor has one or none.
TensorView expand(const TensorView& t, const int64_t* shape, int ndim) {
  TensorView wide = t;
  wide.ndim = ndim;
  for (int i = 0; i < ndim; ++i) {
    int from = i - (ndim - t.ndim);
    bool leading = i < ndim - 2;
    wide.shape[i] = leading ? shape[i] : t.shape[from];
    wide.strides[i] = from < 0 || (leading && t.shape[from] == 1) ? 0 : t.strides[from];
  }
  return wide;
}

// What two operands become: matrices of the same leading dimensions, and the shape of the result
// with and without the dimension that a vector lacks.
struct Operands {
  TensorView a, b;
  int64_t shape[kMaxDims], result[kMaxDims];
  int ndim, result_ndim;
  std::span<const int64_t> result_shape() const { return {result, size_t(result_ndim)}; }
};

Operands arrange(const TensorView& input, const TensorView& other) {
  HONED_CHECK(input.ndim > 0 && other.ndim > 0, "matmul: input has shape ", shape_of(input),
              " and other ", shape_of(other), ", expected at least 1 dimension");
  Operands o;
  o.a = as_matrix(input, true);
  o.b = as_matrix(other, false);
  o.ndim = std::max(o.a.ndim, o.b.ndim);
  for (int i = 0; i < o.ndim - 2; ++i) {
    int in_a = i - (o.ndim - o.a.ndim), in_b = i - (o.ndim - o.b.ndim);
    int64_t size_a = in_a < 0 ? 1 : o.a.shape[in_a], size_b = in_b < 0 ? 1 : o.b.shape[in_b];
    HONED_CHECK(size_a == size_b || size_a == 1 || size_b == 1, "matmul: input has shape ",
                shape_of(input), " and other ", shape_of(other),
                ", expected leading dimensions that are equal or 1");
    o.shape[i] = size_a == 1 ? size_b : size_a;
  }
  o.shape[o.ndim - 2] = o.a.size(-2);
  o.shape[o.ndim - 1] = o.b.size(-1);
  o.a = expand(o.a, o.shape, o.ndim);
  o.b = expand(o.b, o.shape, o.ndim);
  o.result_ndim = 0;
  for (int i = 0; i < o.ndim; ++i)
    if (!(i == o.ndim - 2 && input.ndim == 1) && !(i == o.ndim - 1 && other.ndim == 1))
      o.result[o.result_ndim++] = o.shape[i];
  return o;
}

void multiply(const TensorView& out, const Operands& o, const Epilogue& epilogue) {
  TensorView y = out;
  y.ndim = o.ndim;
  int64_t stride = 1;
  for (int i = o.ndim - 1; i >= 0; --i) {
    y.shape[i] = o.shape[i];
    y.strides[i] = stride;
    stride *= o.shape[i];
  }
  matmul(y, o.a, o.b, epilogue);
}

py::object product(const Tensor& input, const Tensor& other, const Epilogue& epilogue) {
  Operands operands = arrange(input.view(), other.view());
  NewTensor out = empty(input, operands.result_shape(), input->dtype);
  {
    py::gil_scoped_release released;
    multiply(out.view, operands, epilogue);
  }
  return out.object;
}

py::object run(const Tensor& input, const Tensor& other, double scale, const OptionalPair& plus) {
  require_cpu("matmul",
              {&input, &other, plus ? &plus->first : nullptr, plus ? &plus->second : nullptr});
  Epilogue epilogue;
  epilogue.scale = scale;
  if (plus) {
    epilogue.left = &plus->first.view();
    epilogue.right = &plus->second.view();
  }
  return product(input, other, epilogue);
}

// input, other, scale
PyObject* matmul_at_once(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 3) {
    PyErr_SetString(PyExc_TypeError, "matmul_at_once: expected 3 arguments");
    return nullptr;
  }
  return at_once<2>(args, [&](const Tensor* t) {
    Epilogue epilogue;
    epilogue.scale = PyFloat_AsDouble(args[2]);
    if (epilogue.scale == -1 && PyErr_Occurred()) throw py::error_already_set();
    return product(t[0], t[1], epilogue);
  });
}
PyMethodDef methods[] = {
    {"matmul_at_once", as_method(matmul_at_once), METH_FASTCALL,
     "matmul_at_once(input, other, scale): matmul of torch tensors; None where multiplies() is 2, "
     "NotImplemented where it is 0."},
    {nullptr, nullptr, 0, nullptr}};

// The same for torch's dispatcher.
auto dispatched(Results& results, const TensorView& a, const TensorView& b, double scale) {
  Operands operands = arrange(a, b);
  TensorView out = results.make(operands.result_shape(), a.dtype);
  return [=] {
    Epilogue epilogue;
    epilogue.scale = scale;
    multiply(out, operands, epilogue);
  };
}
const TorchOp op{"matmul(Tensor input, Tensor other, float scale) -> Tensor", boxed<dispatched>};

}  // namespace

void bind_matmul(py::module_& m) {
  PyModule_AddFunctions(m.ptr(), methods);
  m.def("matmul", &run, "Product of matrices, with leading dimensions broadcast.", py::arg("input"),
        py::arg("other"), py::arg("scale") = 1.0, py::arg("plus") = py::none());
}

}  // namespace honed::bindings
