// out[n,:] = weight[ids[n],:]      ids: (N,) i64 or i32; weight: (V,C); out: (N,C)
//
// weight and out are f32, f16 or bf16, each of its own type, with any row stride and unit stride
// along C. The kernel trusts the ids; embedding() has looked at all of them. Parallel over ids.
#pragma once
#include "core/tensor_view.h"

namespace honed {

struct EmbeddingArgs {
  const void* ids;
  DType ids_dtype;
  const void* weight;
  void* out;
  int64_t count, cols, weight_stride, out_stride;
  DType dtype, out_dtype;  // of weight, of out
};

// out and weight are 2-D, ids is contiguous. An id outside [0, V) throws std::out_of_range (Python
// IndexError).
void embedding(const TensorView& out, const TensorView& ids, const TensorView& weight);

}  // namespace honed
