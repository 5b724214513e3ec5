// Weights of convolutions made ready: panels, padded biases, what ConvWeight keeps.
#pragma once
#include "ops/conv.h"

namespace honed {

// Panels of a group: sizes, no memory yet.
PackedView conv_panels(WeightKind kind, int64_t outputs, int64_t inputs);
int64_t conv_inputs(const TensorView& w);  // of an output channel

// w (O, C, KD, KH, KW) to the panels of all groups, f32 (f64).
void pack_conv_weight(const TensorView& w, int64_t groups, void* to);

// A bias with whole panels in every group, f32 (f64).
int64_t padded_bias_bytes(int64_t outputs, int64_t groups, DType dtype);
void pad_bias(const TensorView& bias, int64_t groups, void* to);

}  // namespace honed
