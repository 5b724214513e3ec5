// Names of activations, for the bindings that take one.
#pragma once
#include <string>

#include "ops/linear.h"

namespace honed::bindings {

Activation activation_of(const std::string& name);

}  // namespace honed::bindings
