// Tensors and sizes of the convolutions' bindings.
#pragma once
#include "bindings/channels.h"
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
inline TensorView make_image(Results& results, const TensorView& input, const TensorView& shape) {
  const bool last =
      input.ndim >= 4 && !input.contiguous() && input.stride(1) == 1 && input.size(1) != 1;
  return make_in_layout(results, shape, 1, last);
}

// What happens to a result of that shape; the work's own copy, whose epilogue points into it.
class Finish {
 public:
  Finish(const char* op, const TensorView& out, const TensorView* bias, const TensorView* residual,
         Activation activation)
      : bias_(bias), activation_(activation), adds_(residual != nullptr) {
    HONED_CHECK(!residual || same_shape(*residual, out), op, ": residual has shape ",
                residual ? shape_of(*residual) : "", ", expected ", shape_of(out));
    if (residual) residual_ = spatial(*residual, op);
  }
  ConvEpilogue epilogue() const { return {bias_, adds_ ? &residual_ : nullptr, activation_}; }

 private:
  const TensorView* bias_;
  TensorView residual_;
  Activation activation_;
  bool adds_;
};

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
