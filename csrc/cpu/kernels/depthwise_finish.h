// What the kernels of depthwise convolution share: the way to memory, and where the border begins.
#pragma once
#include "cpu/kernels/conv_strip.h"
#include "cpu/kernels/product_finish.h"
#include "ops/_depthwise.h"

HONED_BEGIN_LEVEL
namespace {

template <bool b>
struct Flag {
  static constexpr bool value = b;
};
template <int n>
struct Number {
  static constexpr int value = n;
  constexpr operator int() const { return n; }
};

// Loaded once: a compiler may repeat the load in every product that reads v.
HONED_INLINE vf in_register(vf v) {
  asm("" : "+v"(v));
  return v;
}
HONED_INLINE vd in_register(vd v) { return v; }

// Lanes at a distance: one load where it is 1.
template <class T>
HONED_INLINE Vec<T> load_apart(const T* p, int64_t step, int n) {
  return step == 1 ? load(p, n) : gather<T, Sum<T>>(p, step, n);
}
template <class T>
HONED_INLINE void store_apart(T* p, int64_t step, Vec<T> v, int n) {
  if (step == 1)
    store(p, v, n);
  else
    scatter(p, step, v, n);
}

template <class T>
HONED_INLINE Vec<T> bias_of(const DepthwiseArgs& a, int64_t channel, int n) {
  if (!a.bias) return set1(Sum<T>(0));
  return load_apart(static_cast<const Sum<T>*>(a.bias) + channel * a.bias_c, a.bias_c, n);
}

// Where vectors of sums go: from vector to vector and from lane to lane, of y and of the residual.
struct Steps {
  int64_t y, y_lane, residual, residual_lane;
};

template <class T>
[[gnu::noinline]] void finish_any_way(const Vec<T>* sum, int count, const Steps& step,
                                      Activation activation, T* y, const T* residual, int n) {
  for (int p = 0; p < count; ++p) {
    Vec<T> value = sum[p];
    if (residual) value = value + load_apart(residual + p * step.residual, step.residual_lane, n);
    store_apart(y + p * step.y, step.y_lane, activate(value, activation), n);
  }
}

// Sums to memory.
template <class T>
struct Finish {
  Steps step;
  Activation activation;
  bool simple;
  Vec<T> low, high;

  HONED_INLINE Finish(const DepthwiseArgs& a, const Steps& steps)
      : step(steps), activation(a.activation) {
    using S = Sum<T>;
    const S far = S(__builtin_inff());
    low = set1(activation == Activation::none ? -far : S(0));
    high = set1(activation == Activation::relu6 ? S(6) : far);
    simple = !a.residual && step.y_lane == 1 &&
             (activation == Activation::none || activation == Activation::relu ||
              activation == Activation::relu6);
  }
  template <int count>
  HONED_INLINE void operator()(const Vec<T> (&sum)[count], T* y, const T* residual, int n) const {
    if (simple) {
#pragma GCC unroll 8
      for (int p = 0; p < count; ++p) store(y + p * step.y, vmin(high, vmax(low, sum[p])), n);
    } else {
      Vec<T> copy[count];
#pragma GCC unroll 8
      for (int p = 0; p < count; ++p) copy[p] = sum[p];
      finish_any_way<T>(copy, count, step, activation, y, residual, n);
    }
  }
};

// Narrows pixels [low, high) of a row of y to those that see no border at its ends.
HONED_INLINE void inner(const DepthwiseArgs& a, int64_t& low, int64_t& high) {
  const int64_t stride = a.stride[2], before = a.before[2];
  const int64_t room = a.x.size[2] + before - (a.kernel[2] - 1) * a.dilation[2];
  const int64_t first = before > 0 ? (before + stride - 1) / stride : 0;
  const int64_t past = room > 0 ? (room + stride - 1) / stride : 0;
  if (low < first) low = first < high ? first : high;
  if (high > past) high = past > low ? past : low;
}

}  // namespace
HONED_END_LEVEL
