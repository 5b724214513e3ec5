// Rows of a channel with their border, as f32 (f64): copied so that the inputs of outputs side by
// side lie side by side whatever the stride: column q of the copy is at [q % stride][q / stride].
#pragma once
#include "cpu/kernels/conv_strip.h"
#include "cpu/simd/split.h"
#include "ops/_depthwise.h"

HONED_BEGIN_LEVEL
namespace {

// to[q % stride][q / stride] = line[first + q], `count` of them
template <class S, class T>
void copy_line(const T* line, int64_t step, int64_t size, Border border, int64_t first,
               int64_t count, int64_t stride, S* to, int64_t pitch) {
  int64_t low = first < 0 ? -first : 0, high = size - first;
  if (high > count) high = count;
  if (low > high) low = high = 0;
  auto place = [&](int64_t q) {
    if (stride == 1) return q;
    if (stride == 2) return (q & 1) * pitch + (q >> 1);
    return q % stride * pitch + q / stride;
  };
  auto border_at = [&](int64_t begin, int64_t end) {
    for (int64_t q = begin; q < end; ++q) {
      const int64_t from = source(first + q, size, border);
      to[place(q)] = from < 0 ? S(0) : scalar(line[from * step]);
    }
  };
  border_at(0, low);
  border_at(high, count);
  const T* from = line + first * step;
  int64_t q = low;
  if (step == 1 && stride == 1) return copy_inputs(from + low, high - low, to + low);
  if constexpr (sizeof(S) == 4) {
    if (step == 1 && stride == 2) {
      if (q < high && q % 2) {
        to[place(q)] = scalar(from[q]);
        ++q;
      }
      for (; q < high; q += 2 * kLanes) {
        const int64_t left = high - q;
        vf a, b;
        if (left >= 2 * kLanes) {
          a = load(from + q);
          b = load(from + q + kLanes);
        } else {
          a = load(from + q, left < kLanes ? int(left) : kLanes);
          b = left > kLanes ? load(from + q + kLanes, int(left - kLanes)) : zero();
        }
        split_pairs(a, b);
        const int64_t even = (left + 1) / 2, odd = left / 2;
        store(to + q / 2, a, even < kLanes ? int(even) : kLanes);
        store(to + pitch + q / 2, b, odd < kLanes ? int(odd) : kLanes);
      }
      return;
    }
  }
  for (; q < high; ++q) to[place(q)] = scalar(from[q * step]);
}

// The copies that a block of outputs reads, and its products: output pixel (h, w) of the block is
// the sum over t of weight[t] data[h next_row + w + offset[t]].
template <class S>
struct Copies {
  const DepthwiseArgs& a;
  S* data;
  S* weight;
  int64_t* offset;
  int64_t taps = 0;
  int64_t pitch, row, next_row, plane;  // of a residue, a row, the rows of outputs one apart
  int64_t* tap_of;                      // where the weight of a product lies

  explicit Copies(const DepthwiseArgs& args) : a(args) {
    const DepthwiseCopy& copy = a.copy;
    pitch = copy.pitch;
    row = copy.row;
    plane = copy.plane;
    next_row = copy.next_row;
    char* at = static_cast<char*>(a.scratch);
    offset = reinterpret_cast<int64_t*>(at);
    tap_of = offset + copy.taps;
    weight = reinterpret_cast<S*>(tap_of + copy.taps);
    data = reinterpret_cast<S*>(at + copy.data);
    // Vectors read past the last column: what is not used is zeros at first, then old inputs.
    for (int64_t i = 0; i < copy.elements; ++i) data[i] = S(0);
  }

  // Copies the planes that output plane d reads and lists their products; how many planes.
  template <class T>
  int64_t load_planes(const T* image, int64_t x_plane, int64_t d, int64_t h, int64_t w,
                      int64_t rows, int64_t columns) {
    const int64_t count = (columns - 1) * a.stride[2] + (a.kernel[2] - 1) * a.dilation[2] + 1;
    const int64_t first = w * a.stride[2] - a.before[2];
    const bool dense =
        next_row != 0;  // all rows from the first to the last, not the kernel's alone
    const int64_t lines =
        dense ? (rows - 1) * a.stride[1] + (a.kernel[1] - 1) * a.dilation[1] + 1 : a.kernel[1];
    int64_t planes = 0;
    taps = 0;
    for (int64_t j = 0; j < a.planes; ++j)
      for (int64_t kd = 0; kd < a.kernel[0]; ++kd) {
        const int64_t from_d =
            source(d * a.stride[0] + kd * a.dilation[0] - a.before[0], a.x.size[0], a.border);
        if (from_d < 0) continue;
        for (int64_t i = 0; i < lines; ++i) {
          const int64_t from_h =
              source(h * a.stride[1] + (dense ? i : i * a.dilation[1]) - a.before[1], a.x.size[1],
                     a.border);
          S* to = data + planes * plane + i * row;
          if (from_h < 0) {
            for (int64_t s = 0; s < a.stride[2]; ++s)
              copy_inputs<S, S>(nullptr, (count + a.stride[2] - 1) / a.stride[2], to + s * pitch);
            continue;
          }
          copy_line(image + j * x_plane + from_d * a.x.s[0] + from_h * a.x.s[1], a.x.s[2],
                    a.x.size[2], a.border, first, count, a.stride[2], to, pitch);
        }
        for (int64_t kh = 0; kh < a.kernel[1]; ++kh)
          for (int64_t kw = 0; kw < a.kernel[2]; ++kw) {
            const int64_t q = kw * a.dilation[2];
            offset[taps] = planes * plane + (dense ? kh * a.dilation[1] : kh) * row +
                           q % a.stride[2] * pitch + q / a.stride[2];
            tap_of[taps++] = j * a.w_plane + kd * a.w_tap[0] + kh * a.w_tap[1] + kw * a.w_tap[2];
          }
        ++planes;
      }
    return planes;
  }

  void weigh(const S* of_channel) {
    for (int64_t t = 0; t < taps; ++t) weight[t] = of_channel[tap_of[t]];
  }
};

}  // namespace
HONED_END_LEVEL
