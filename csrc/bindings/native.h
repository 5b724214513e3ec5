// honed._core.takes, the question that every op asks first.
#pragma once
#include <pybind11/pybind11.h>

namespace honed::bindings {

void bind_native(pybind11::module_& m);

}  // namespace honed::bindings
