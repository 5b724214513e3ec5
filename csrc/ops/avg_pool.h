// y[b,c,o] = sum_k x[b,c,o stride - padding + k] / size(o)        over two spatial dimensions
// dx[b,c,i] = sum of g[b,c,o] / size(o) over the windows o that i lies in
//
// size: elements of the window, with or without those in the padding, or a given number. x, y: any element type,
// dense; sums are f32, f64 for f64. Parallel over rows of the result: (b,c,h), with the channels last (b,h).
#pragma once
#include "ops/_pool.h"

namespace honed {

// args: of pool_args, with channels_last, include_padding and divisor.
void avg_pool(const TensorView& y, const TensorView& x, PoolArgs args);
void avg_pool_backward(const TensorView& dx, const TensorView& g, PoolArgs args);

}  // namespace honed
