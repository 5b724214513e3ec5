// A transposed convolution of images of one pixel: a product.
#pragma once
#include "ops/conv.h"

namespace honed {

// False, and nothing done, where it is none: x has more pixels, y is not the whole kernel's, or the
// elements of y and w do not lie in one order.
bool conv_head(const TensorView& y, const TensorView& x, const TensorView& w,
               const ConvShape& shape, const ConvEpilogue& epilogue);

}  // namespace honed
