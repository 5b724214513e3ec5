// layer_norm and its gradients: two passes over a row that fits the first-level cache.
#include "ops/layer_norm.h"

#include "cpu/kernels/norm_rows.h"

HONED_BEGIN_LEVEL

void layer_norm(const NormArgs& a, int64_t begin, int64_t end) { norm<true, false>(a, begin, end); }

void layer_norm_backward(const NormBackwardArgs& a, int64_t begin, int64_t end) {
  norm_backward<true>(a, begin, end);
}

HONED_END_LEVEL
