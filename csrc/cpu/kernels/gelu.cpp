// y = x P(x), P the normal distribution function or its tanh approximation, and its gradient.
#include "cpu/kernels/pointwise.h"
#include "cpu/simd/activations.h"

HONED_BEGIN_LEVEL

void gelu(const PointwiseArgs& a, int64_t begin, int64_t end) {
  if (a.tanh)
    map_one(a, begin, end,
            [](auto t, auto x) { return gelu_of<typename decltype(t)::type, true>(x); });
  else
    map_one(a, begin, end,
            [](auto t, auto x) { return gelu_of<typename decltype(t)::type, false>(x); });
}

void gelu_backward(const PointwiseArgs& a, int64_t begin, int64_t end) {
  if (a.tanh)
    map_two(a, begin, end, [](auto t, auto x, auto g) {
      return g * gelu_with_slope<typename decltype(t)::type, true>(x).slope;
    });
  else
    map_two(a, begin, end, [](auto t, auto x, auto g) {
      return g * gelu_with_slope<typename decltype(t)::type, false>(x).slope;
    });
}

HONED_END_LEVEL
