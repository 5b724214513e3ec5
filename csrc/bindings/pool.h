// What the bindings of the poolings share.
#pragma once
#include "bindings/channels.h"
#include "ops/_pool.h"

namespace honed::bindings {

inline int channel_of(const TensorView& t, int64_t dims) { return t.ndim - int(dims) - 1; }

// The shape of t with other spatial sizes.
inline TensorView resized(const TensorView& t, int64_t dims, int64_t h, int64_t w) {
  TensorView shape = t;
  shape.shape[t.ndim - 1] = w;
  if (dims == 2) shape.shape[t.ndim - 2] = h;
  return shape;
}

// What a backward is of: a tensor with grad's leading dimensions and the given spatial ones.
inline TensorView input_of(const char* op, const TensorView& grad, int64_t dims, int64_t h,
                           int64_t w) {
  HONED_CHECK(grad.ndim == dims + 1 || grad.ndim == dims + 2, op, ": grad has shape ",
              shape_of(grad), ", expected ", dims + 1, " or ", dims + 2, " dimensions");
  return resized(grad, dims, h, w);
}

}  // namespace honed::bindings
