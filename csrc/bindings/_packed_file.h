// Names that the bindings of packed weights share.
#pragma once
#include <pybind11/pybind11.h>

#include <optional>
#include <string>

#include "ops/linear.h"

namespace honed::bindings {

// None for "exact"; throws ValueError for another name.
std::optional<WeightKind> weight_kind_of(const std::string& name);
void bind_packed_file(pybind11::module_& m);

}  // namespace honed::bindings
