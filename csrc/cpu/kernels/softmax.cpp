// y = e^(x - max) / sum: the maximum, then the exponentials with their sum, then the quotient.
#include "ops/softmax.h"

#include "cpu/simd/math.h"
#include "cpu/visit.h"

HONED_BEGIN_LEVEL

namespace {

constexpr float kInfinity = __builtin_inff();

template <class T>
HONED_INLINE float max_of(const T* x, int64_t cols) {
  vf top[4];
  for (vf& t : top) t = set1(-kInfinity);
  int64_t c = 0;
  for (; c + 4 * kLanes <= cols; c += 4 * kLanes)
    for (int u = 0; u < 4; ++u) top[u] = vmax(load(x + c + u * kLanes), top[u]);
  for_lanes(cols - c, [&](int64_t i, int n) {
    top[0] = vmax(keep_first(load(x + c + i, n), n, set1(-kInfinity)), top[0]);
  });
  return reduce_max(vmax(vmax(top[0], top[1]), vmax(top[2], top[3])));
}

// e^(x - max) of every element to put(i, e, n); returns the sum.
template <class T, class F>
HONED_INLINE float exponentials(const T* x, int64_t cols, float max, F&& put) {
  vf sum[2] = {zero(), zero()};
  vf m = set1(max);
  int64_t c = 0;
  for (; c + 2 * kLanes <= cols; c += 2 * kLanes)
    for (int u = 0; u < 2; ++u) {
      vf e = vexp(load(x + c + u * kLanes) - m);
      sum[u] = sum[u] + e;
      put(c + u * kLanes, e, kLanes);
    }
  for_lanes(cols - c, [&](int64_t i, int n) {
    vf e = vexp(load(x + c + i, n) - m);
    sum[0] = sum[0] + keep_first(e, n, zero());
    put(c + i, e, n);
  });
  return reduce_add(sum[0] + sum[1]);
}

// Where y is narrower than f32, exponentials of rows up to this length wait here for their sum;
// those of longer rows are made twice, rather than rounded twice.
constexpr int64_t kBuffer = 4096;

template <class T, class Y>
void rows(const SoftmaxArgs& a, int64_t begin, int64_t end) {
  [[maybe_unused]] float buffer[sizeof(Y) == 4 ? 1 : kBuffer];
  for (int64_t r = begin; r < end; ++r) {
    const T* x = static_cast<const T*>(a.x) + r * a.x_stride;
    Y* y = static_cast<Y*>(a.y) + r * a.y_stride;
    float max = max_of(x, a.cols);
    float* e = nullptr;
    if constexpr (sizeof(Y) == 4)
      e = y;
    else if (a.cols <= kBuffer)
      e = buffer;
    if (e) {
      float sum = exponentials(x, a.cols, max, [&](int64_t i, vf v, int n) { store(e + i, v, n); });
      vf scale = set1(1.0f / sum);
      for_lanes(a.cols, [&](int64_t i, int n) { store(y + i, load(e + i, n) * scale, n); });
    } else {
      float sum = exponentials(x, a.cols, max, [](int64_t, vf, int) {});
      vf m = set1(max), scale = set1(1.0f / sum);
      for_lanes(a.cols,
                [&](int64_t i, int n) { store(y + i, vexp(load(x + i, n) - m) * scale, n); });
    }
  }
}

}  // namespace

void softmax(const SoftmaxArgs& a, int64_t begin, int64_t end) {
  visit_float(a.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    if (a.y_dtype == DType::f32)
      rows<T, float>(a, begin, end);
    else
      rows<T, T>(a, begin, end);
  });
}

HONED_END_LEVEL
