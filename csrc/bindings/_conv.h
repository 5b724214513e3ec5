// Tensors and sizes of the convolutions' bindings.
#pragma once
#include "bindings/function.h"
#include "ops/conv.h"

namespace honed::bindings {

// (N, C, D, H, W) of a tensor with one to three spatial dimensions: the first absent ones are 1.
inline TensorView spatial(const TensorView& t, const char* op) {
  HONED_CHECK(t.ndim >= 3 && t.ndim <= 5, op, ": a tensor has shape ", shape_of(t),
              ", expected 1 to 3 spatial dimensions after batch and channels");
  TensorView wide = t;
  const int absent = 5 - t.ndim;
  wide.ndim = 5;
  for (int i = 4; i >= 2 + absent; --i) {
    wide.shape[i] = t.shape[i - absent];
    wide.strides[i] = t.strides[i - absent];
  }
  for (int i = 2; i < 2 + absent; ++i) {
    wide.shape[i] = 1;
    wide.strides[i] = 0;
  }
  return wide;
}

// The next result, with the channels fastest where `input` has them so (and torch has a name for it).
inline TensorView make_image(Results& results, const TensorView& input, TensorView shape) {
  const int n = input.ndim;
  if (n < 4 || input.contiguous() || input.stride(1) != 1 || input.size(1) == 1)
    return results.make({shape.shape, size_t(n)}, shape.dtype);
  int order[kMaxDims] = {0};
  for (int i = 1; i < n; ++i) order[i] = i == n - 1 ? 1 : i + 1;
  return results.make_in_order(shape, order);
}

struct Geometry {
  int64_t stride[3], before[3], after[3], dilation[3], groups, border;

  ConvShape shape(const char* op, const int64_t* kernel) const {
    HONED_CHECK(border >= 0 && border <= int(Border::circular), op, ": border is ", border,
                ", expected 0 to 3");
    ConvShape s{{}, {}, {}, {}, groups, Border(border)};
    for (int i = 0; i < 3; ++i) {
      HONED_CHECK(stride[i] > 0 && dilation[i] > 0, op, ": stride is ", stride[i], " and dilation ",
                  dilation[i], ", expected at least 1");
      s.kernel[i] = kernel[i];
      s.stride[i] = stride[i];
      s.dilation[i] = dilation[i];
      s.before[i] = before[i];
    }
    return s;
  }
};

inline Activation activation_at(const char* op, int64_t index) {
  HONED_CHECK(index >= 0 && index <= int(Activation::silu), op, ": activation is ", index,
              ", expected 0 to ", int(Activation::silu));
  return Activation(index);
}

}  // namespace honed::bindings
