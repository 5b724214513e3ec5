// Arguments that the bindings of products share.
#pragma once
#include <optional>
#include <utility>

#include "bindings/native.h"

namespace honed::bindings {

// left and right of a second product that is added to the first.
using OptionalPair = std::optional<std::pair<Tensor, Tensor>>;

// A product by the shortest way in: make(operands) where the kernel takes them now; None where only
// a gradient is in the way; else NotImplemented, and honed.ops finds out why.
template <int operands, class F>
PyObject* at_once(PyObject* const* args, F&& make) {
  Tensor tensors[operands];
  Answer answer = borrow_product(args, operands, tensors);
  if (answer == kError) return nullptr;
  if (answer == kNeedsGradient) Py_RETURN_NONE;
  if (answer != kYes) Py_RETURN_NOTIMPLEMENTED;
  try {
    return make(tensors).release().ptr();
  } catch (...) {
    set_python_error();
    return nullptr;
  }
}

}  // namespace honed::bindings
