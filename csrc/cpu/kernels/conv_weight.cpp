// A convolution's weight to panels [KD][KH][KW][C][32 outputs].
#include "cpu/simd/transpose.h"
#include "cpu/simd/vec_f64.h"
#include "cpu/visit.h"
#include "ops/conv.h"

HONED_BEGIN_LEVEL

namespace {

// `outputs` rows of inputs that lie together, [C][taps] or [taps][C] in memory.
template <class T>
void pack_together(const T* w, int64_t o, int outputs, int64_t channels, int64_t taps,
                   bool taps_inside, float* to) {
  const int64_t inputs = channels * taps;
  for (int first = 0; first < kPanel; first += kLanes) {
    const int rows = outputs - first < 0 ? 0 : outputs - first < kLanes ? outputs - first : kLanes;
    int64_t c = 0, tap = 0;
    for (int64_t i = 0; i < inputs; i += kLanes) {
      const int columns = int(inputs - i < kLanes ? inputs - i : kLanes);
      vf block[kLanes];
      for (int l = 0; l < kLanes; ++l)
        block[l] = l < rows ? load(w + (first + l) * o + i, columns) : zero();
      transpose(block);
      for (int l = 0; l < columns; ++l) {
        store(to + (taps_inside ? tap * channels + c : i + l) * kPanel + first, block[l]);
        if (++tap == taps) {
          tap = 0;
          ++c;
        }
      }
    }
  }
}

template <class S, class T>
void pack(const ConvWeightArgs& a, const T* w, int outputs, S* to) {
  const int64_t taps = a.kernel[0] * a.kernel[1] * a.kernel[2];
  if constexpr (sizeof(S) == 4) {
    // A dimension of one element has any stride.
    auto lies = [&](int64_t inner) {
      int64_t expected = inner;
      for (int i = 2; i >= 0; --i) {
        if (a.kernel[i] != 1 && a.k[i] != expected) return false;
        expected *= a.kernel[i];
      }
      return true;
    };
    if ((a.c == taps || a.channels == 1) && lies(1))
      return pack_together(w, a.o, outputs, a.channels, taps, true, to);
    if ((a.c == 1 || a.channels == 1) && lies(a.channels))
      return pack_together(w, a.o, outputs, a.channels, taps, false, to);
  }
  for (int64_t kd = 0; kd < a.kernel[0]; ++kd)
    for (int64_t kh = 0; kh < a.kernel[1]; ++kh)
      for (int64_t kw = 0; kw < a.kernel[2]; ++kw) {
        const T* tap = w + kd * a.k[0] + kh * a.k[1] + kw * a.k[2];
        for (int64_t c = 0; c < a.channels; ++c, to += kPanel)
          for (int o = 0; o < kPanel; ++o)
            to[o] = o < outputs ? S(scalar(tap[c * a.c + o * a.o])) : S(0);
      }
}

}  // namespace

void conv_weight(const ConvWeightArgs& a, int64_t begin, int64_t end) {
  const int64_t inputs = a.channels * a.kernel[0] * a.kernel[1] * a.kernel[2];
  for (int64_t item = begin; item < end; ++item) {
    const int64_t group = item / a.panels, first = item % a.panels * kPanel;
    const int64_t left = a.outputs - first;
    const int outputs = int(left < kPanel ? left : kPanel);
    visit_real(a.dtype, [&](auto t) {
      using T = typename decltype(t)::type;
      pack(a, static_cast<const T*>(a.w) + (group * a.outputs + first) * a.o, outputs,
           static_cast<Sum<T>*>(a.to) + item * inputs * kPanel);
    });
  }
}

HONED_END_LEVEL
