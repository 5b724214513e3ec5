// A tensor whose rows the kernels can read.
#pragma once
#include <optional>

#include "bindings/tensor.h"

namespace honed::bindings {

// A copy only where the last dimension has no unit stride.
class UnitStride {
 public:
  explicit UnitStride(const TensorView& tensor) : view_(tensor) {
    if (tensor.size(-1) > 1 && tensor.stride(-1) != 1) view_ = *dense_.emplace(tensor).view();
  }
  const TensorView& view() const { return view_; }

 private:
  TensorView view_;
  std::optional<Dense> dense_;
};

}  // namespace honed::bindings
