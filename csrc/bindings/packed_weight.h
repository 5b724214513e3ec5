// Reading lists of tensors and weight kinds from Python.
#pragma once
#include <string>
#include <vector>

#include "bindings/tensor.h"
#include "ops/packed_weight.h"

namespace honed::bindings {

WeightKind weight_kind_of(const std::string& name);
Activation activation_of(const std::string& name);

}  // namespace honed::bindings
