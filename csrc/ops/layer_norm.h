// y[r,c] = (x[r,c] - mean_c) / dev * w[c] + b[c]        dev = sqrt(var_c + eps); x, y: (R,C)
// dx[r,c] = (g w - mean_c(g w) - n mean_c(g w n)) / dev, dw[c] = sum_r g n, db[c] = sum_r g
//
// mean and var (biased) are of the row x[r,:]; n = (x - mean) / dev, g = dy. The variance is summed
// around the mean.
#pragma once
#include "ops/_norm.h"

namespace honed {

// y, x, dx and g are 2-D; dx, dw or db nullptr: not wanted.
void layer_norm(const TensorView& y, const TensorView& x, const TensorView* w, const TensorView* b,
                double eps);
void layer_norm_backward(const NormGradients& gradients, double eps);

}  // namespace honed
