// y = x / (1 + e^-x) and its gradient.
#include "cpu/kernels/pointwise.h"
#include "cpu/simd/activations.h"

HONED_BEGIN_LEVEL

void silu(const PointwiseArgs& a, int64_t begin, int64_t end) {
  map_one(a, begin, end, [](auto t, auto x) { return silu_of<typename decltype(t)::type>(x); });
}

void silu_backward(const PointwiseArgs& a, int64_t begin, int64_t end) {
  map_two(a, begin, end, [](auto t, auto x, auto g) {
    return g * silu_with_slope<typename decltype(t)::type>(x).slope;
  });
}

HONED_END_LEVEL
