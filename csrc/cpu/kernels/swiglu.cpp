// y = silu(gate) up and its gradients.
#include "cpu/kernels/pointwise.h"
#include "cpu/simd/activations.h"

HONED_BEGIN_LEVEL

void swiglu(const PointwiseArgs& a, int64_t begin, int64_t end) {
  map_two(a, begin, end, [](auto t, auto gate, auto up) {
    return silu_of<typename decltype(t)::type>(gate) * up;
  });
}

void swiglu_backward(const PointwiseArgs& a, int64_t begin, int64_t end) {
  map_gated_backward(a, begin, end, [](auto t, auto gate) {
    return silu_with_slope<typename decltype(t)::type>(gate);
  });
}

HONED_END_LEVEL
