// honed._core.matmul
#include "ops/matmul.h"

#include <pybind11/stl.h>

#include <algorithm>

#include "bindings/product.h"
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

py::object run(const Tensor& input, const Tensor& other, double scale, const OptionalPair& plus) {
  require_cpu("matmul",
              {&input, &other, plus ? &plus->first : nullptr, plus ? &plus->second : nullptr});
  HONED_CHECK(input->ndim > 0 && other->ndim > 0, "matmul: input has shape ",
              shape_of(input.view()), " and other ", shape_of(other.view()),
              ", expected at least 1 dimension");
  TensorView a = as_matrix(input.view(), true), b = as_matrix(other.view(), false);
  int64_t shape[kMaxDims];
  int ndim = std::max(a.ndim, b.ndim);
  for (int i = 0; i < ndim - 2; ++i) {
    int in_a = i - (ndim - a.ndim), in_b = i - (ndim - b.ndim);
    int64_t size_a = in_a < 0 ? 1 : a.shape[in_a], size_b = in_b < 0 ? 1 : b.shape[in_b];
    HONED_CHECK(size_a == size_b || size_a == 1 || size_b == 1, "matmul: input has shape ",
                shape_of(input.view()), " and other ", shape_of(other.view()),
                ", expected leading dimensions that are equal or 1");
    shape[i] = size_a == 1 ? size_b : size_a;
  }
  shape[ndim - 2] = a.size(-2);
  shape[ndim - 1] = b.size(-1);
  a = expand(a, shape, ndim);
  b = expand(b, shape, ndim);
  int64_t result[kMaxDims];
  int count = 0;
  for (int i = 0; i < ndim; ++i)
    if (!(i == ndim - 2 && input->ndim == 1) && !(i == ndim - 1 && other->ndim == 1))
      result[count++] = shape[i];
  NewTensor out = empty(input, {result, size_t(count)}, input->dtype);
  TensorView y = out.view;
  y.ndim = ndim;
  int64_t stride = 1;
  for (int i = ndim - 1; i >= 0; --i) {
    y.shape[i] = shape[i];
    y.strides[i] = stride;
    stride *= shape[i];
  }
  Epilogue epilogue;
  epilogue.scale = scale;
  if (plus) {
    epilogue.left = &plus->first.view();
    epilogue.right = &plus->second.view();
  }
  {
    py::gil_scoped_release released;
    matmul(y, a, b, epilogue);
  }
  return out.object;
}

}  // namespace

void bind_matmul(py::module_& m) {
  m.def("matmul", &run, "Product of matrices, with leading dimensions broadcast.", py::arg("input"),
        py::arg("other"), py::arg("scale") = 1.0, py::arg("plus") = py::none());
}

}  // namespace honed::bindings
