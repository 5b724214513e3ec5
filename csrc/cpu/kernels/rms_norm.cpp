// rms_norm and its gradients: two passes over a row that fits the first-level cache.
#include "ops/rms_norm.h"

#include "cpu/kernels/norm_rows.h"

HONED_BEGIN_LEVEL

void rms_norm(const NormArgs& a, int64_t begin, int64_t end) { norm<false, false>(a, begin, end); }

void rms_norm_backward(const NormBackwardArgs& a, int64_t begin, int64_t end) {
  norm_backward<false>(a, begin, end);
}

HONED_END_LEVEL
