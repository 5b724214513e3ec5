// Tensor as an argument of functions that pybind11 binds.
#pragma once
#include <pybind11/pybind11.h>

#include "bindings/tensor.h"

namespace pybind11::detail {

template <>
struct type_caster<honed::bindings::Tensor> {
  PYBIND11_TYPE_CASTER(honed::bindings::Tensor, const_name("torch.Tensor"));
  bool load(handle source, bool) { return value.borrow(source.ptr()); }
};

}  // namespace pybind11::detail
