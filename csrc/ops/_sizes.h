// Small sums about sizes and types. Not for kernels: an inline function compiled at a CPU level could
// be linked into the baseline program.
#pragma once
#include <cstdint>

#include "core/dtype.h"

namespace honed {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t n, int64_t step) { return ceil_div(n, step) * step; }

// What sums over elements of a type are made in.
inline DType sum_type(DType dtype) { return dtype == DType::f64 ? DType::f64 : DType::f32; }

}  // namespace honed
