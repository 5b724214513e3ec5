// What the elementwise ops share: memory without gaps is one row, whatever the order of its
// dimensions.
#pragma once
#include <algorithm>

#include "bindings/tensor.h"

namespace honed::bindings {

// The order of dimensions, slowest first, in which the tensor's memory is contiguous; false where
// there are gaps, overlaps or negative strides.
inline bool dense_order(const TensorView& t, int* order) {
  for (int i = 0; i < t.ndim; ++i) order[i] = i;
  std::stable_sort(order, order + t.ndim,
                   [&](int a, int b) { return t.strides[a] > t.strides[b]; });
  int64_t expected = 1;
  for (int i = t.ndim - 1; i >= 0; --i) {
    int d = order[i];
    if (t.shape[d] == 1) continue;
    if (t.strides[d] != expected) return false;
    expected *= t.shape[d];
  }
  return true;
}

inline TensorView one_row(const TensorView& t) {
  TensorView row = t;
  row.ndim = 2;
  row.shape[0] = row.strides[1] = 1;
  row.shape[1] = row.strides[0] = t.numel();
  return row;
}

// Runs body(y, x) on 2-D views of a new tensor and the input. The new tensor has the input's
// strides where its memory is dense (as torch has it), else it is contiguous.
template <class F>
py::object elementwise(const char* op, const Tensor& input, F&& body) {
  require_cpu(op, {&input});
  if (input->contiguous()) {
    NewTensor out = empty_like(input);
    {
      TensorView y = one_row(out.view), x = one_row(input.view());
      py::gil_scoped_release released;
      body(y, x);
    }
    return out.object;
  }
  int order[kMaxDims];
  if (dense_order(input.view(), order)) {
    int64_t shape[kMaxDims];
    py::tuple back{size_t(input->ndim)};
    for (int i = 0; i < input->ndim; ++i) {
      shape[i] = input->shape[order[i]];
      back[size_t(order[i])] = i;
    }
    NewTensor out = empty(input, {shape, size_t(input->ndim)}, input->dtype);
    {
      TensorView y = one_row(out.view), x = one_row(input.view());
      py::gil_scoped_release released;
      body(y, x);
    }
    return out.object.attr(py::hasattr(out.object, "permute") ? "permute" : "transpose")(back);
  }
  Rows x(input.view());
  NewTensor out = empty_like(input);
  Rows y(out.view);
  {
    py::gil_scoped_release released;
    body(y.view(), x.view());
  }
  return out.object;
}

}  // namespace honed::bindings
