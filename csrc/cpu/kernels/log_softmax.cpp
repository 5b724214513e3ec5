// y = x - max - ln sum: the maximum, the sum of exponentials, the differences.
#include "ops/log_softmax.h"

#include "cpu/kernels/softmax_rows.h"

HONED_BEGIN_LEVEL

void log_softmax(const SoftmaxArgs& a, int64_t begin, int64_t end) {
  visit_softmax(a.dtype, a.y_dtype, [&](auto t, auto of_y) {
    using T = typename decltype(t)::type;
    using Y = typename decltype(of_y)::type;
    for (int64_t r = begin; r < end; ++r) {
      const T* x = static_cast<const T*>(a.x) + r * a.x_stride;
      Sum<T> max = max_of(x, a.cols);
      Sum<T> sum = exponentials(x, a.cols, max, [](int64_t, Vec<T>, int) {});
      log_softmax_row(x, static_cast<Y*>(a.y) + r * a.y_stride, a.cols, max, logarithm(sum));
    }
  });
}

HONED_END_LEVEL
