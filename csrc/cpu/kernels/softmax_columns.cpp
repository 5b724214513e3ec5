// softmax and log_softmax over a dimension that is not the last: columns side by side.
#include "cpu/kernels/softmax_rows.h"

HONED_BEGIN_LEVEL

namespace {

// Where an item's columns begin, and how many it has.
struct Block {
  int64_t at, width;
};
template <class Args>
HONED_INLINE Block block_of(const Args& a, int64_t item) {
  int64_t blocks = (a.inner + kSoftmaxInner - 1) / kSoftmaxInner;
  int64_t from = item % blocks * kSoftmaxInner, left = a.inner - from;
  return {item / blocks * a.cols * a.inner + from, left < kSoftmaxInner ? left : kSoftmaxInner};
}

// Calls body(offset in the tensors, offset in the block, n) down the columns.
template <class T, class Args, class F>
HONED_INLINE void down(const Args& a, Block b, F&& body) {
  for (int64_t r = 0; r < a.cols; ++r)
    for_lanes_of<T>(b.width, [&](int64_t i, int n) { body(b.at + r * a.inner + i, i, n); });
}
template <class S>
HONED_INLINE void fill(S* to, S value) {
  for (int64_t i = 0; i < kSoftmaxInner; ++i) to[i] = value;
}

template <class T, class Y>
void columns(const SoftmaxArgs& a, int64_t item) {
  using S = Sum<T>;
  const T* x = static_cast<const T*>(a.x);
  Y* y = static_cast<Y*>(a.y);
  Block b = block_of(a, item);
  S max[kSoftmaxInner], sum[kSoftmaxInner];
  fill(max, S(-kInfinity));
  fill(sum, S(0));
  down<T>(a, b, [&](int64_t at, int64_t i, int n) {
    store(max + i, vmax(load(x + at, n), load(max + i, n)), n);
  });
  down<T>(a, b, [&](int64_t at, int64_t i, int n) {
    Vec<T> e = vexp(load(x + at, n) - load(max + i, n));
    store(sum + i, load(sum + i, n) + e, n);
    if constexpr (sizeof(Y) == sizeof(S))
      if (!a.log) store(y + at, e, n);
  });
  for (int64_t i = 0; i < b.width; ++i) sum[i] = a.log ? logarithm(sum[i]) : 1 / sum[i];
  down<T>(a, b, [&](int64_t at, int64_t i, int n) {
    Vec<T> last = load(sum + i, n);
    auto apart = [&] { return load(x + at, n) - load(max + i, n); };
    if (a.log)
      store(y + at, apart() - last, n);
    else if constexpr (sizeof(Y) == sizeof(S))
      store(y + at, load(y + at, n) * last, n);
    else
      store(y + at, vexp(apart()) * last, n);
  });
}

template <class T, class Y>
void columns_backward(const SoftmaxBackwardArgs& a, int64_t item) {
  using S = Sum<Y>;
  const Y* g = static_cast<const Y*>(a.g);
  const Y* y = static_cast<const Y*>(a.y);
  T* dx = static_cast<T*>(a.dx);
  Block b = block_of(a, item);
  S sum[kSoftmaxInner];
  fill(sum, S(0));
  down<Y>(a, b, [&](int64_t at, int64_t i, int n) {
    Vec<Y> v = load(g + at, n);
    store(sum + i, load(sum + i, n) + (a.log ? v : v * load(y + at, n)), n);
  });
  down<Y>(a, b, [&](int64_t at, int64_t i, int n) {
    Vec<Y> v = load(g + at, n), out = load(y + at, n), s = load(sum + i, n);
    store(dx + at, a.log ? v - vexp(out) * s : out * (v - s), n);
  });
}

}  // namespace

void softmax_columns(const SoftmaxArgs& a, int64_t begin, int64_t end) {
  visit_softmax(a.dtype, a.y_dtype, [&](auto t, auto y) {
    for (int64_t i = begin; i < end; ++i)
      columns<typename decltype(t)::type, typename decltype(y)::type>(a, i);
  });
}

void softmax_columns_backward(const SoftmaxBackwardArgs& a, int64_t begin, int64_t end) {
  visit_softmax(a.dtype, a.y_dtype, [&](auto t, auto y) {
    for (int64_t i = begin; i < end; ++i)
      columns_backward<typename decltype(t)::type, typename decltype(y)::type>(a, i);
  });
}

HONED_END_LEVEL
