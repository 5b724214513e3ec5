// Vectors over columns read where the image lies, masked at its ends: AVX-512 alone.
#pragma once
#include "cpu/kernels/depthwise_finish.h"
#include "cpu/simd/split.h"

HONED_BEGIN_LEVEL
namespace {

// A plane of a channel and the plane of y made of it.
template <class T>
struct Plane {
  const DepthwiseArgs& a;
  const T* x;
  const Sum<T>* weights;  // [KH][KW]
  Sum<T> bias;
  T* y;
  const T* residual;
};
// Rows [h, h + ...) and columns [first, past).
template <class T>
using Direct = void (*)(const Plane<T>&, int64_t h, int64_t first, int64_t past);

#if defined(__AVX512F__)

HONED_INLINE vf load_at(const float* p, __mmask16 m) { return _mm512_maskz_loadu_ps(m, p); }
HONED_INLINE vf load_at(const f16* p, __mmask16 m) {
  return from_f16(_mm256_maskz_loadu_epi16(m, p));
}
HONED_INLINE vf load_at(const bf16* p, __mmask16 m) {
  return from_bf16(_mm256_maskz_loadu_epi16(m, p));
}

// Lanes of columns [at, at + 16) that lie in the image.
HONED_INLINE __mmask16 lanes_in(int64_t at, int64_t size) {
  const int64_t low = at < 0 ? (at < -16 ? 16 : -at) : 0;
  const int64_t high = size - at < 0 ? 0 : (size - at > 16 ? 16 : size - at);
  return low < high ? __mmask16((1u << high) - (1u << low)) : __mmask16(0);
}

template <class T, int taps, int stride, int rows>
void direct(const Plane<T>& plane, int64_t h, int64_t first, int64_t past) {
  const DepthwiseArgs& a = plane.a;
  constexpr int kLoads = stride == 1 ? taps : taps + 1;
  const Finish<T> finish(a, {a.y_s[1], a.y_s[2], a.residual_s[1], a.residual_s[2]});
  const vf bias = set1(plane.bias);
  for (int64_t w = first; w < past; w += kLanes) {
    const int n = past - w < kLanes ? int(past - w) : kLanes;
    const int64_t from = w * stride - a.before[2], top = h * stride - a.before[1];
    // Where a load begins: one a tap, or of stride 2 two vectors an even tap.
    auto begin_of = [](int i) { return stride == 1 ? i : i / 2 * 2 + i % 2 * kLanes; };
    __mmask16 mask[kLoads];
#pragma GCC unroll 8
    for (int i = 0; i < kLoads; ++i) mask[i] = lanes_in(from + begin_of(i), a.x.size[2]);
    vf sum[rows];
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) sum[r] = bias;
#pragma GCC unroll 32
    for (int i = 0; i < (rows - 1) * stride + taps; ++i) {
      if (uint64_t(top + i) >= uint64_t(a.x.size[1])) continue;
      const T* line = plane.x + (top + i) * a.x.s[1] + from;
      vf v[kLoads];
#pragma GCC unroll 8
      for (int k = 0; k < kLoads; ++k) v[k] = load_at(line + begin_of(k), mask[k]);
      if constexpr (stride == 2)
#pragma GCC unroll 8
        for (int k = 0; k < kLoads; k += 2) split_pairs(v[k], v[k + 1]);
#pragma GCC unroll 8
      for (int r = 0; r < rows; ++r) {
        const int tap = i - r * stride;
        if (tap < 0 || tap >= taps) continue;
#pragma GCC unroll 8
        for (int k = 0; k < taps; ++k)
          sum[r] = fmadd(v[k], set1(plane.weights[tap * taps + k]), sum[r]);
      }
    }
    finish(sum, plane.y + h * a.y_s[1] + w * a.y_s[2],
           plane.residual ? plane.residual + h * a.residual_s[1] + w * a.residual_s[2] : nullptr,
           n);
  }
}

// nullptr: the copies' way.
template <class T, int rows>
Direct<T> direct_for(const DepthwiseArgs& a) {
  Direct<T> found = nullptr;
  if constexpr (sizeof(T) != 8) {
    const bool fits = a.border == Border::zeros && a.x.s[2] == 1 && a.kernel[0] * a.planes == 1 &&
                      a.dilation[1] == 1 && a.dilation[2] == 1;
    auto take = [&](auto taps, auto stride) {
      constexpr int kTaps = decltype(taps)::value, kStride = decltype(stride)::value;
      if (fits && a.kernel[1] == kTaps && a.kernel[2] == kTaps && a.stride[1] == kStride &&
          a.stride[2] == kStride)
        found = direct<T, kTaps, kStride, rows>;
    };
    take(Number<3>{}, Number<1>{});
    take(Number<5>{}, Number<1>{});
    take(Number<3>{}, Number<2>{});
    take(Number<5>{}, Number<2>{});
  }
  return found;
}

#else

template <class T, int rows>
Direct<T> direct_for(const DepthwiseArgs&) {
  return nullptr;
}

#endif

}  // namespace
HONED_END_LEVEL
