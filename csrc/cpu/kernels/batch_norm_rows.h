// Sums over planes of a channel, and what an activation lets through.
#pragma once
#include "cpu/simd/vec_f64.h"
#include "cpu/visit.h"
#include "ops/batch_norm.h"

HONED_BEGIN_LEVEL
namespace {

HONED_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// Sums of several rows, in four independent chains.
template <class T, int how_many>
struct Chains {
  static constexpr int kStep = kLanesOf<T>, kChains = 4;
  Vec<T> sum[how_many][kChains] = {};

  struct Parts {
    Vec<T> part[how_many];
  };
  // f(i, n): the parts of n elements from i on; of the lanes beyond n nothing is counted.
  template <class F>
  HONED_INLINE void add(int64_t count, F&& f) {
    int64_t i = 0;
    for (; i + kChains * kStep <= count; i += kChains * kStep)
      for (int u = 0; u < kChains; ++u) {
        Parts v = f(i + u * kStep, kStep);
        for (int p = 0; p < how_many; ++p) sum[p][u] = sum[p][u] + v.part[p];
      }
    for (int u = 0; i < count; i += kStep, ++u) {
      int n = int(least(kStep, count - i));
      Parts v = f(i, n);
      for (int p = 0; p < how_many; ++p)
        sum[p][u] = sum[p][u] + (n == kStep ? v.part[p] : keep_first(v.part[p], n, Vec<T>{}));
    }
  }
  HONED_INLINE Sum<T> total(int p) const {
    return reduce_add((sum[p][0] + sum[p][1]) + (sum[p][2] + sum[p][3]));
  }
};

// Kept between the bounds; a bound that is NaN is none, and a NaN stays.
template <class V>
HONED_INLINE V bounded(V v, V low, V high) {
  return vmin(high, vmax(low, v));
}
// The gradient where the result lies between the bounds, or is NaN.
template <class V>
HONED_INLINE V passed(V g, V y, V low, V high) {
  return y <= low ? V{} : y >= high ? V{} : g;
}

template <class T>
HONED_INLINE const T* at(const void* tensor, int64_t offset) {
  return tensor ? static_cast<const T*>(tensor) + offset : nullptr;
}
template <class T>
HONED_INLINE T* at(void* tensor, int64_t offset) {
  return tensor ? static_cast<T*>(tensor) + offset : nullptr;
}

// A block of rows and a piece of channels.
struct Block {
  int64_t index, first_row, last_row, first, last;
};
HONED_INLINE Block block_of(const BatchNormShape& shape, int64_t block, int64_t item) {
  int64_t pieces = (shape.channels + kBatchNormPiece - 1) / kBatchNormPiece;
  int64_t index = item / pieces, first = item % pieces * kBatchNormPiece;
  return {index, index * block, least((index + 1) * block, shape.batch * shape.size), first,
          least(first + kBatchNormPiece, shape.channels)};
}

// body(Side of how many vectors stand side by side, first channel, channels of a vector).
template <int how_many>
struct Side {
  static constexpr int count = how_many;
};
template <class T, class F>
HONED_INLINE void for_channels(int64_t begin, int64_t end, F&& body) {
  constexpr int kStep = kLanesOf<T>, kSide = 4;
  int64_t c = begin;
  for (; c + kSide * kStep <= end; c += kSide * kStep) body(Side<kSide>{}, c, kStep);
  for (; c < end; c += kStep) body(Side<1>{}, c, int(least(kStep, end - c)));
}

}  // namespace
HONED_END_LEVEL
