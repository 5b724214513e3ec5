// Names that the bindings of packed weights share.
#pragma once
#include <pybind11/pybind11.h>

#include <string>

#include "ops/linear.h"

namespace honed::bindings {

WeightKind weight_kind_of(const std::string& name);  // throws ValueError for another name
void bind_packed_file(pybind11::module_& m);

}  // namespace honed::bindings
