// y[b,c,o] = mean of x[b,c,i] over i from floor(o I / O) to ceil((o + 1) I / O)        in both spatial dimensions
// dx[b,c,i] = sum of g[b,c,o] / size(o) over the windows o that i lies in
//
// I, O: sizes of x and y. x, y: any element type, dense; sums are f32, f64 for f64. Parallel over planes (b,c);
// with the channels last over rows of the result and pieces of kPoolChannels channels, (b,h,C).
#pragma once
#include "ops/_pool.h"

namespace honed {

// args: of adaptive_args, with channels_last.
void adaptive_avg_pool(const TensorView& y, const TensorView& x, PoolArgs args);
void adaptive_avg_pool_backward(const TensorView& dx, const TensorView& g, PoolArgs args);

}  // namespace honed
