// From a tile of sums to memory: scale, bias, activation, residual.
#pragma once
#include "cpu/kernels/linear_float.h"
#include "cpu/simd/math.h"
#include "cpu/simd/transpose.h"
#include "cpu/simd/vec_f64.h"
#include "cpu/visit.h"

HONED_BEGIN_LEVEL
namespace {

HONED_INLINE vf activate(vf x, Activation activation) {
  switch (activation) {
    case Activation::none:
      return x;
    case Activation::relu:
      return vmax(zero(), x);
    case Activation::relu6:
      return vmin(set1(6.0f), vmax(zero(), x));
    case Activation::gelu:
      return vgelu(x);
    case Activation::gelu_tanh:
      return vgelu_tanh(x);
    case Activation::silu:
      return vsilu(x);
  }
  return x;
}
HONED_INLINE vd activate(vd x, Activation activation) {  // the op has refused the others
  if (activation == Activation::none) return x;
  x = x < vd{} ? vd{} : x;
  return activation == Activation::relu6 ? (x > set1(6.0) ? set1(6.0) : x) : x;
}

// out[m][c] = scale * out[m][c] * scales[c] + bias over one panel; bias of the panel's channels.
template <class S>
void scale_and_bias(const Destination& to, int64_t row, int rows, const float* scales,
                    const S* bias, S* out) {
  using V = typename Simd<S>::type;
  constexpr int kVector = Simd<S>::lanes;
  if (!scales && !bias && !to.bias_of_rows && to.scale == 1.0) return;
  const S* of_rows = static_cast<const S*>(to.bias_of_rows);
  for (int c = 0; c < kPanel; c += kVector) {
    V scale = set1(S(to.scale));
    if constexpr (sizeof(S) == 4)
      if (scales) scale = scale * load(scales + c);
    V add = bias ? load(bias + c) : set1(S(0));
    for (int m = 0; m < rows; ++m) {
      S* at = out + m * kPanel + c;
      V value = fmadd(load(at), scale, add);
      if (of_rows) value = value + set1(of_rows[row + m]);
      store(at, value);
    }
  }
}

// Elements with a gap between them.
template <class T, class S>
HONED_INLINE typename Simd<S>::type gather(const T* p, int64_t step, int n) {
  S lanes[Simd<S>::lanes];
  for (int i = 0; i < n; ++i) lanes[i] = scalar(p[i * step]);
  return load(static_cast<const S*>(lanes), n);
}
template <class T, class V>
HONED_INLINE void scatter(T* p, int64_t step, V v, int n) {
  T lanes[sizeof(V) / 4];
  store(lanes, v, n);
  for (int i = 0; i < n; ++i) p[i * step] = lanes[i];
}

// y of `rows` rows and `count` channels from `first` on; up: the other half of a gated product.
template <class S, class T>
void finish(const Destination& to, int64_t row, int rows, int64_t first, int count, const S* out,
            const S* up) {
  constexpr int kVector = Simd<S>::lanes;
  for (int m = 0; m < rows; ++m) {
    T* y = static_cast<T*>(to.y) + (row + m) * to.y_row + first * to.y_col;
    const T* residual = to.residual ? static_cast<const T*>(to.residual) +
                                          (row + m) * to.residual_row + first * to.residual_col
                                    : nullptr;
    for (int c = 0; c < count; c += kVector) {
      int n = count - c < kVector ? count - c : kVector;
      auto value = load(out + m * kPanel + c);
      auto add_residual = [&]() __attribute__((always_inline)) {
        value = value + (to.residual_col == 1
                             ? load(residual + c, n)
                             : gather<T, S>(residual + c * to.residual_col, to.residual_col, n));
      };
      if (residual && to.residual_first) add_residual();
      value = activate(value, to.activation);
      if (up) value = value * load(up + m * kPanel + c);
      if (residual && !to.residual_first) add_residual();
      if (to.y_col == 1)
        store(y + c, value, n);
      else
        scatter(y + c * to.y_col, to.y_col, value, n);
    }
  }
}

// Where the sums of a panel can go straight from registers to y, its first row and channel being
// these; bias of the panel's channels. False where they cannot.
HONED_INLINE bool goes_straight(const Destination& to, int64_t row, int64_t first, int count,
                                const float* bias, Straight* straight) {
  if (to.dtype != DType::f32 || to.y_col != 1 || to.activation > Activation::relu6 ||
      to.scale != 1.0 || to.bias_of_rows)
    return false;
  if (to.residual &&
      (to.residual_col != 1 || !(to.residual_first || to.activation == Activation::none)))
    return false;
  constexpr float kInfinity = __builtin_inff();
  const bool clamps = to.activation != Activation::none;
  *straight = {static_cast<float*>(to.y) + row * to.y_row + first,
               to.y_row,
               bias,
               to.residual ? static_cast<const float*>(to.residual) + row * to.residual_row + first
                           : nullptr,
               to.residual_row,
               clamps ? 0.0f : -kInfinity,
               to.activation == Activation::relu6 ? 6.0f : kInfinity,
               count};
  return true;
}

// The same where the rows of y lie side by side, as pixels of a plane do: blocks turned in registers.
template <class T>
void finish_turned(const Destination& to, int64_t row, int rows, int64_t first, int count,
                   const float* out) {
  for (int c = 0; c < count; c += kLanes)
    for (int m = 0; m < rows; m += kLanes) {
      const int columns = count - c < kLanes ? count - c : kLanes;
      const int n = rows - m < kLanes ? rows - m : kLanes;
      vf block[kLanes];
      for (int i = 0; i < kLanes; ++i) block[i] = i < n ? load(out + (m + i) * kPanel + c) : zero();
      transpose(block);
      for (int i = 0; i < columns; ++i) {
        vf value = block[i];
        const T* residual =
            static_cast<const T*>(to.residual) + (row + m) + (first + c + i) * to.residual_col;
        if (to.residual && to.residual_first) value = value + load(residual, n);
        value = activate(value, to.activation);
        if (to.residual && !to.residual_first) value = value + load(residual, n);
        store(static_cast<T*>(to.y) + (row + m) + (first + c + i) * to.y_col, value, n);
      }
    }
}

template <class S>
void finish_any(const Destination& to, int64_t row, int rows, int64_t first, int count,
                const S* out, const S* up) {
  if constexpr (sizeof(S) == 8)
    finish<double, double>(to, row, rows, first, count, out, up);
  else
    visit_float(to.dtype, [&](auto t) {
      const bool turned = to.y_row == 1 && to.y_col != 1 && count > 1 && rows > 1 && !up;
      if (turned && (!to.residual || to.residual_row == 1))
        return finish_turned<typename decltype(t)::type>(to, row, rows, first, count, out);
      finish<float, typename decltype(t)::type>(to, row, rows, first, count, out, up);
    });
}

}  // namespace
HONED_END_LEVEL
