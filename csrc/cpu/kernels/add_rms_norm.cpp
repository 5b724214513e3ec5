// A sum and its rms_norm in one pass over memory.
#include "ops/add_rms_norm.h"

#include "cpu/kernels/norm_rows.h"

HONED_BEGIN_LEVEL

void add_rms_norm(const NormArgs& a, int64_t begin, int64_t end) {
  norm<false, true>(a, begin, end);
}

HONED_END_LEVEL
