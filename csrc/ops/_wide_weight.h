// Weights of normalisations in the type that their kernels take.
#pragma once
#include <optional>

#include "core/arena.h"
#include "core/tensor_view.h"

namespace honed {

// A weight in the type of sums; nullptr of an absent one.
class WideWeight {
 public:
  explicit WideWeight(const TensorView* w) : data_(w ? w->data : nullptr) {
    if (w && (w->dtype == DType::f16 || w->dtype == DType::bf16)) widen(*w);
  }
  const void* data() const { return data_; }

 private:
  void widen(const TensorView& w);
  std::optional<Scratch> wide_;
  const void* data_;
};

}  // namespace honed
