// y[n,o,q] = activation(sum over p, k with p stride + k dilation - before = q of
//                       w[g C + c,o,k] x[n, g C + c, p] + b[o] + residual[n,o,q])
//
// The gradient of conv's input for x the gradient of its output. x: (N, groups C, D, H, W)
// y: (N, O, D', H', W')  w: (groups C, O / groups, KD, KH, KW), any strides. Every residue of q
// modulo the stride is a convolution of stride 1 with some of the kernel's elements, turned round:
// the kernels are those of conv. Images of one pixel are rows of a
// product (ops/_conv_head.h).
#pragma once
#include "ops/conv.h"

namespace honed {

void conv_transpose(const TensorView& y, const TensorView& x, const TensorView& w,
                    const ConvShape& shape, const ConvEpilogue& epilogue, bool exact);

}  // namespace honed
