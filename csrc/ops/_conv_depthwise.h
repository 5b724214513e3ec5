// A 1 x 1 convolution and the depthwise convolution of what it gives, a panel of channels and some
// rows at a time: what lies between them is never an image in memory.
#pragma once
#include "ops/conv.h"

namespace honed {

// y = activation(second * act(first * x + bias) + bias + residual), all f32; x with channels side by
// side and pixels a step apart; shape: of the second, its border of zeros.
void conv_depthwise(const TensorView& y, const TensorView& x, const ConvWeight& first,
                    Activation act, const ConvWeight& second, const ConvShape& shape,
                    const ConvEpilogue& epilogue);

}  // namespace honed
