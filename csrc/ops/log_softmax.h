// y[r,c] = x[r,c] - max_c x[r,:] - ln sum_c e^(x[r,c] - max_c x[r,:])      x, y: (R,C)
// dx[r,c] = g - e^y sum_c g                                               g = dy
//
// Types, strides and threads as in ops/softmax.h.
#pragma once
#include "ops/softmax.h"

namespace honed {

void log_softmax(const TensorView& y, const TensorView& x, int dim);
void log_softmax_backward(const TensorView& dx, const TensorView& g, const TensorView& y, int dim);

}  // namespace honed
