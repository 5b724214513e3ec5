// y = max(x, 0) and its gradient, from y.
#include "cpu/kernels/pointwise.h"
#include "cpu/simd/activations.h"

HONED_BEGIN_LEVEL

void relu(const PointwiseArgs& a, int64_t begin, int64_t end) {
  map_one(a, begin, end, [](auto, auto x) { return vmax(decltype(x){}, x); });
}

void relu_backward(const PointwiseArgs& a, int64_t begin, int64_t end) {
  map_two(a, begin, end,
          [](auto, auto y, auto g) { return y <= decltype(y){} ? decltype(g){} : g; });
}

HONED_END_LEVEL
