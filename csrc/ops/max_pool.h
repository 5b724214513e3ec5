// y[b,c,o] = max_k x[b,c,o stride - padding + k dilation]        over two spatial dimensions
// dx[b,c,i] = sum of g[b,c,o] over the windows o whose largest element i is, the first of several
//
// A NaN is larger than all, and the last of several is taken; what lies in the padding is not seen. x, y: any
// element type, dense. Parallel over rows of the result: (b,c,h), with the channels last (b,h).
#pragma once
#include "ops/_pool.h"

namespace honed {

// args: of pool_args, with channels_last. codes and indices: like y, or nullptr where not wanted.
void max_pool(const TensorView& y, const TensorView* codes, const TensorView* indices,
              const TensorView& x, PoolArgs args);
void max_pool_backward(const TensorView& dx, const TensorView& g, const TensorView& codes,
                       PoolArgs args);

DType type_of_codes(const PoolArgs& args);

}  // namespace honed
