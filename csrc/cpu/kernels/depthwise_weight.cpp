// The weight of a depthwise convolution, and its gradient, between [O][tap] and [tap][O].
#include "cpu/kernels/conv_strip.h"
#include "ops/_depthwise.h"

HONED_BEGIN_LEVEL

void depthwise_weight(const DepthwiseWeightArgs& a, int64_t begin, int64_t end) {
  visit_real(a.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    using S = Sum<T>;
    const int64_t first = begin * kDepthwiseItem;
    const int64_t last = end * kDepthwiseItem < a.outputs ? end * kDepthwiseItem : a.outputs;
    const bool whole = a.k[1] == a.k[2] * a.kernel[2] && a.k[0] == a.k[1] * a.kernel[1];
    const int64_t taps = whole ? a.kernel[0] * a.kernel[1] * a.kernel[2] : a.kernel[2];
    S* to = static_cast<S*>(a.to) + first;
    for (int64_t d = 0; d < (whole ? 1 : a.kernel[0]); ++d)
      for (int64_t h = 0; h < (whole ? 1 : a.kernel[1]); ++h) {
        const T* from = static_cast<const T*>(a.w) + first * a.o + d * a.k[0] + h * a.k[1];
        copy_pixels(from, a.k[2], a.o, last - first, taps, to, a.outputs);
        to += taps * a.outputs;
      }
  });
}

HONED_END_LEVEL
