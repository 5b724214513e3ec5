// to[b,h,t0+t,:] = from[b,t,h,:], converted: new keys or values into the engine's cache.
#pragma once
#include "core/tensor_view.h"

namespace honed {

struct CacheAppendArgs {
  const float* from;
  int64_t batch, time, heads, head_dim;
  int64_t from_stride;  // of a token (b,t); heads lie one after the other
  void* to;
  int64_t to_batch_stride, to_head_stride;  // elements; a position is head_dim of them
  int64_t first;                            // t0
  DType dtype;                              // of `to`
};  // items: B * T

}  // namespace honed
