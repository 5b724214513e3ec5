// y[r,c] = x[r,c] / rms(x[r,:]) * w[c]        rms(x) = sqrt(mean_c(x^2) + eps); x, y: (R,C)
// dx[r,c] = (g w - n mean_c(g w n)) / rms, dw[c] = sum_r g n        g: dy, n = x / rms
#pragma once
#include "ops/_norm.h"

namespace honed {

// y, x, dx and g are 2-D; dx or dw nullptr: not wanted.
void rms_norm(const TensorView& y, const TensorView& x, const TensorView* w, double eps);
void rms_norm_backward(const TensorView* dx, const TensorView* dw, const TensorView& g,
                       const TensorView& x, const TensorView* w, double eps);

}  // namespace honed
