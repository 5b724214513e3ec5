// out[n,:] = weight[ids[n],:]      ids: (N,) i64 or i32; weight: (V,C); out: (N,C)
// dw[v,:] = sum over n with ids[n] = v of g[n,:], in the order of n; 0 for v = padding, divided by
// how many these are where gradients are scaled by frequency      g: dout, (N,C)
//
// weight is f64, f32, f16 or bf16, out of its type or f32 beside f16 and bf16, both with any row stride
// and unit stride along C; dw is contiguous and has g's type, sums are f32, f64 for f64. The kernels
// trust the ids; all of them have been looked at. Parallel over ids; backward over the rows that
// were named, by blocks of kEmbeddingColumns columns, so that one row named by all is shared.
#pragma once
#include "core/tensor_view.h"

namespace honed {

inline constexpr int64_t kEmbeddingColumns = 128;

struct EmbeddingArgs {
  const void* ids;
  DType ids_dtype;
  const void* weight;
  void* out;
  int64_t count, cols, weight_stride, out_stride;
  DType dtype, out_dtype;  // of weight, of out
};

// Item i is columns block i / named of row row[i % named] of dw, the sum of the rows
// places[first[v]] to places[first[v + 1] - 1] of g.
struct EmbeddingBackwardArgs {
  const void* g;
  void* dw;
  const int64_t *row, *first, *places;
  int64_t named, cols, g_stride;
  bool mean;
  DType dtype;
};

// out and weight are 2-D, ids is contiguous. An id outside [0, V) throws std::out_of_range (Python
// IndexError).
void embedding(const TensorView& out, const TensorView& ids, const TensorView& weight);
// dw: (V,C) contiguous, all of it written; padding -1: none.
void embedding_backward(const TensorView& dw, const TensorView& g, const TensorView& ids,
                        int64_t padding, bool scale_by_frequency);

}  // namespace honed
