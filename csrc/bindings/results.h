// What a bound function returns, whoever called it.
#pragma once
#include <cstdint>
#include <span>

#include "core/tensor_view.h"

namespace honed::bindings {

class Results {
 public:
  virtual ~Results() = default;
  // The next result: a new contiguous tensor.
  virtual TensorView make(std::span<const int64_t> shape, DType dtype) = 0;
  // The next result: as `like`, contiguous in that order of dimensions, slowest first.
  virtual TensorView make_in_order(const TensorView& like, const int* order) = 0;
  // The next result is not wanted: None, in torch's registry an empty tensor.
  virtual void skip() = 0;

  TensorView make_like(const TensorView& t) { return make({t.shape, size_t(t.ndim)}, t.dtype); }
  TensorView make_if(bool wanted, const TensorView* like) {
    if (wanted && like) return make_like(*like);
    skip();
    return {};
  }
};

}  // namespace honed::bindings
