// s[r,c] = x[r,c] + a[r,c], rounded to their type; y = layer_norm(s)        x, a, s, y: (R,C)
// dx = da = ds + the gradient that y's gives s, dw and db as in ops/layer_norm.h
#pragma once
#include "ops/_norm.h"

namespace honed {

void add_layer_norm(const NormTensors& tensors, double eps);
// gradients.x: s; gradients.g_sum: ds, nullptr for zeros.
void add_layer_norm_backward(const NormGradients& gradients, double eps);

}  // namespace honed
