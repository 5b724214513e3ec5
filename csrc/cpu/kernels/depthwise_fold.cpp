// The gradient of inputs that are border too: each of their places meets the kernel. Few are.
#include "cpu/kernels/depthwise_finish.h"

HONED_BEGIN_LEVEL
namespace {

// Calls body(position) for the border's positions along an axis that are the input q.
template <class F>
HONED_INLINE void as_border(const DepthwiseArgs& a, int axis, int64_t q, F&& body) {
  const int64_t size = a.size[axis], before = a.before[axis];
  const int64_t past =
      (a.x.size[axis] - 1) * a.stride[axis] + (a.kernel[axis] - 1) * a.dilation[axis] - before + 1;
  for (int64_t p = -before; p < 0; ++p)
    if (source(p, size, a.border) == q) body(p);
  for (int64_t p = size; p < past; ++p)
    if (source(p, size, a.border) == q) body(p);
}

// Calls body(output, tap) for the outputs along an axis that input q went into.
template <class F>
HONED_INLINE void outputs_of(const DepthwiseArgs& a, int axis, int64_t q, F&& body) {
  auto meet = [&](int64_t p) {
    for (int64_t k = 0; k < a.kernel[axis]; ++k) {
      const int64_t from = p + a.before[axis] - k * a.dilation[axis];
      if (from >= 0 && from % a.stride[axis] == 0 && from / a.stride[axis] < a.x.size[axis])
        body(from / a.stride[axis], k);
    }
  };
  meet(q);
  as_border(a, axis, q, meet);
}

HONED_INLINE bool is_border(const DepthwiseArgs& a, int axis, int64_t q) {
  bool found = false;
  as_border(a, axis, q, [&](int64_t) { found = true; });
  return found;
}

template <class T>
void fold(const DepthwiseArgs& a, int64_t begin, int64_t end) {
  using S = Sum<T>;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t q[2] = {item / a.size[1] % a.size[0], item % a.size[1]};
    const int64_t n = item / a.size[1] / a.size[0];
    const bool whole = is_border(a, 0, q[0]) || is_border(a, 1, q[1]);
    for (int64_t w = 0; w < a.size[2]; ++w) {
      if (!whole && !is_border(a, 2, w)) continue;
      for_lanes_of<T>(a.x.channels, [&](int64_t c, int lanes) {
        Vec<T> sum = set1(S(0));
        const T* g = static_cast<const T*>(a.x.data) + n * a.x.n + c * a.x.c;
        const S* weight = static_cast<const S*>(a.w) + c;
        outputs_of(a, 0, q[0], [&](int64_t d, int64_t kd) {
          outputs_of(a, 1, q[1], [&](int64_t h, int64_t kh) {
            outputs_of(a, 2, w, [&](int64_t i, int64_t kw) {
              const T* at = g + d * a.x.s[0] + h * a.x.s[1] + i * a.x.s[2];
              const S* tap = weight + kd * a.w_tap[0] + kh * a.w_tap[1] + kw * a.w_tap[2];
              for (int64_t j = 0; j < a.planes; ++j)
                sum = fmadd(load_apart(at + j * a.x_plane, a.x.c, lanes),
                            load(tap + j * a.w_plane, lanes), sum);
            });
          });
        });
        T* y = static_cast<T*>(a.y) + n * a.y_n + c * a.y_c + q[0] * a.y_s[0] + q[1] * a.y_s[1] +
               w * a.y_s[2];
        store_apart(y, a.y_c, sum, lanes);
      });
    }
  }
}

}  // namespace

void depthwise_fold(const DepthwiseFoldArgs& a, int64_t begin, int64_t end) {
  visit_real(a.conv.x.dtype, [&](auto t) { fold<typename decltype(t)::type>(a.conv, begin, end); });
}

HONED_END_LEVEL
