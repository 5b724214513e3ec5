// Arguments that the bindings of products share.
#pragma once
#include <optional>
#include <utility>

#include "bindings/tensor.h"

namespace honed::bindings {

// left and right of a second product that is added to the first.
using OptionalPair = std::optional<std::pair<Tensor, Tensor>>;

}  // namespace honed::bindings
