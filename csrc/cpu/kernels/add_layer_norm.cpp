// A sum and its layer_norm in one pass over memory.
#include "ops/add_layer_norm.h"

#include "cpu/kernels/norm_rows.h"

HONED_BEGIN_LEVEL

void add_layer_norm(const NormArgs& a, int64_t begin, int64_t end) {
  norm<true, true>(a, begin, end);
}

HONED_END_LEVEL
