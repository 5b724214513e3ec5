// A strip of an image with its border, channels side by side: to[d][h][w][channel] of f32 (f64).
#pragma once
#include "cpu/simd/transpose.h"
#include "cpu/simd/vec_f64.h"
#include "cpu/visit.h"
#include "ops/conv.h"

HONED_BEGIN_LEVEL
namespace {

// Where position p of an axis lies in the image; -1: it is zero.
HONED_INLINE int64_t source(int64_t p, int64_t size, Border border) {
  if (uint64_t(p) < uint64_t(size)) return p;
  switch (border) {
    case Border::zeros:
      break;
    case Border::reflect:
      return p < 0 ? -p : 2 * (size - 1) - p;
    case Border::replicate:
      return p < 0 ? 0 : size - 1;
    case Border::circular:
      return p < 0 ? p + size : p - size;
  }
  return -1;
}

// to[i] = from[i], or zeros without from
template <class S, class T>
HONED_INLINE void copy_inputs(const T* from, int64_t count, S* to) {
  constexpr int kStep = Simd<S>::lanes;
  int64_t i = 0;
  for (; i + kStep <= count; i += kStep) store(to + i, from ? load(from + i) : set1(S(0)));
  if (i < count) {
    const int n = int(count - i);
    store(to + i, from ? load(from + i, n) : set1(S(0)), n);
  }
}

// to[i * pixel + j] = from[i + j * c]: `count` pixels side by side, channels apart.
template <class T>
void turn_pixels(const T* from, int64_t c, int64_t channels, int64_t count, float* to,
                 int64_t pixel) {
  for (int64_t j = 0; j < channels; j += kLanes) {
    const int rows = int(channels - j < kLanes ? channels - j : kLanes);
    for (int64_t i = 0; i < count; i += kLanes) {
      const int columns = int(count - i < kLanes ? count - i : kLanes);
      const T* p = from + j * c + i;
      float* q = to + i * pixel + j;
      vf block[kLanes];
      if (rows == kLanes && columns == kLanes) {
        for (int l = 0; l < kLanes; ++l) block[l] = load(p + l * c);
        transpose(block);
        for (int l = 0; l < kLanes; ++l) store(q + l * pixel, block[l]);
      } else {
        for (int l = 0; l < kLanes; ++l) block[l] = l < rows ? load(p + l * c, columns) : zero();
        transpose(block);
        for (int l = 0; l < kLanes; ++l)
          if (l < columns) store(q + l * pixel, block[l], rows);
      }
    }
  }
}

// to[i * pixel + j] = from[i * step + j * c]
template <class S, class T>
HONED_INLINE void copy_pixels(const T* from, int64_t step, int64_t c, int64_t channels,
                              int64_t count, S* to, int64_t pixel) {
  if (channels == 1) c = 1;
  if (c == 1 && step == channels && pixel == channels)
    return copy_inputs(from, count * channels, to);
  if (c == 1 && channels > 1) {
    for (int64_t i = 0; i < count; ++i) copy_inputs(from + i * step, channels, to + i * pixel);
    return;
  }
  if constexpr (sizeof(S) == 4)
    if (step == 1) return turn_pixels(from, c, channels, count, to, pixel);
  for (int64_t i = 0; i < count; ++i)
    for (int64_t j = 0; j < channels; ++j) to[i * pixel + j] = scalar(from[i * step + j * c]);
}

// Pixels are `pixel` elements apart, rows `row` and planes `plane`.
template <class S, class T>
void copy_strip(const ConvImage& x, Border border, const Strip& strip, S* to, int64_t pixel,
                int64_t row, int64_t plane) {
  const int64_t channels = strip.channels, count = strip.count[2], step = strip.step[2];
  const T* image = static_cast<const T*>(x.data) + strip.n * x.n + strip.channel * x.c;
  // Columns [low, high) lie in the image.
  const int64_t first = strip.first[2], past = x.size[2] - first;
  int64_t low = first < 0 ? (-first + step - 1) / step : 0;
  int64_t high = past > 0 ? (past + step - 1) / step : 0;
  if (high > count) high = count;
  if (low > high) low = high = 0;
  for (int64_t d = 0; d < strip.count[0]; ++d)
    for (int64_t h = 0; h < strip.count[1]; ++h) {
      S* at = to + d * plane + h * row;
      const int64_t from_d = source(strip.first[0] + d * strip.step[0], x.size[0], border);
      const int64_t from_h = source(strip.first[1] + h * strip.step[1], x.size[1], border);
      if (from_d < 0 || from_h < 0) {
        for (int64_t w = 0; w < count; ++w) copy_inputs<S, T>(nullptr, channels, at + w * pixel);
        continue;
      }
      const T* line = image + from_d * x.s[0] + from_h * x.s[1];
      auto outside = [&](int64_t begin, int64_t end) {
        for (int64_t w = begin; w < end; ++w) {
          const int64_t from_w = source(first + w * step, x.size[2], border);
          if (from_w < 0)
            copy_inputs<S, T>(nullptr, channels, at + w * pixel);
          else
            copy_pixels(line + from_w * x.s[2], x.s[2], x.c, channels, 1, at + w * pixel, pixel);
        }
      };
      outside(0, low);
      copy_pixels(line + (first + low * step) * x.s[2], step * x.s[2], x.c, channels, high - low,
                  at + low * pixel, pixel);
      outside(high, count);
    }
}

template <class S>
void load_strip(const ConvImage& x, Border border, const Strip& strip, S* to, int64_t pixel,
                int64_t row, int64_t plane) {
  if constexpr (sizeof(S) == 8)
    copy_strip<double, double>(x, border, strip, to, pixel, row, plane);
  else
    visit_float(x.dtype, [&](auto t) {
      copy_strip<float, typename decltype(t)::type>(x, border, strip, to, pixel, row, plane);
    });
}

}  // namespace
HONED_END_LEVEL
