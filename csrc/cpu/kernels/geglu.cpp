// y = gelu(gate) up and its gradients.
#include "cpu/kernels/pointwise.h"
#include "cpu/simd/activations.h"

HONED_BEGIN_LEVEL

void geglu(const PointwiseArgs& a, int64_t begin, int64_t end) {
  if (a.tanh)
    map_two(a, begin, end, [](auto t, auto gate, auto up) {
      return gelu_of<typename decltype(t)::type, true>(gate) * up;
    });
  else
    map_two(a, begin, end, [](auto t, auto gate, auto up) {
      return gelu_of<typename decltype(t)::type, false>(gate) * up;
    });
}

void geglu_backward(const PointwiseArgs& a, int64_t begin, int64_t end) {
  if (a.tanh)
    map_gated_backward(a, begin, end, [](auto t, auto gate) {
      return gelu_with_slope<typename decltype(t)::type, true>(gate);
    });
  else
    map_gated_backward(a, begin, end, [](auto t, auto gate) {
      return gelu_with_slope<typename decltype(t)::type, false>(gate);
    });
}

HONED_END_LEVEL
