// Sums along a row, in four independent chains.
#pragma once
#include "cpu/simd/vec_f64.h"

HONED_BEGIN_LEVEL
namespace {

HONED_INLINE float square_root(float x) { return __builtin_sqrtf(x); }
HONED_INLINE double square_root(double x) { return __builtin_sqrt(x); }

// Sums over c of each part of f(c, n), vectors of the n elements from c on, in the steps of T. What
// f gives beyond n is not counted. f: Parts<T, how_many>; sums: how_many.
template <class T, int how_many>
struct Parts {
  Vec<T> part[how_many];
};
template <class T, int how_many, class F>
HONED_INLINE void sum_rows(int64_t cols, Sum<T>* sums, F&& f) {
  constexpr int kStep = kLanesOf<T>, kChains = how_many == 1 ? 4 : 2;
  Vec<T> none = set1(Sum<T>(0)), sum[how_many][kChains];
  for (int p = 0; p < how_many; ++p)
    for (int u = 0; u < kChains; ++u) sum[p][u] = none;
  int64_t c = 0;
  for (; c + kChains * kStep <= cols; c += kChains * kStep)
    for (int u = 0; u < kChains; ++u) {
      Parts<T, how_many> v = f(c + u * kStep, kStep);
      for (int p = 0; p < how_many; ++p) sum[p][u] = sum[p][u] + v.part[p];
    }
  for (; c < cols; c += kStep) {
    int n = cols - c < kStep ? int(cols - c) : kStep;
    Parts<T, how_many> v = f(c, n);
    for (int p = 0; p < how_many; ++p)
      sum[p][0] = sum[p][0] + (n == kStep ? v.part[p] : keep_first(v.part[p], n, none));
  }
  for (int p = 0; p < how_many; ++p) {
    Vec<T> all = sum[p][0] + sum[p][1];
    if constexpr (kChains == 4) all = all + (sum[p][2] + sum[p][3]);
    sums[p] = reduce_add(all);
  }
}

template <class T, class F>
HONED_INLINE Sum<T> sum_row(int64_t cols, F&& f) {
  Sum<T> sum;
  sum_rows<T, 1>(cols, &sum, [&](int64_t c, int n) { return Parts<T, 1>{{f(c, n)}}; });
  return sum;
}

// Mean of the n elements of a row and their summed squares around it: of pieces that the
// first-level cache holds, put together as Chan, Golub and LeVeque do.
template <class T>
struct Moments {
  Sum<T> mean, squares;
};
template <class T, class F>
HONED_INLINE Moments<T> moments(int64_t cols, F&& f) {
  constexpr int64_t kPiece = 4096;
  Moments<T> all{0, 0};
  for (int64_t from = 0; from < cols; from += kPiece) {
    int64_t n = cols - from < kPiece ? cols - from : kPiece;
    Sum<T> mean = sum_row<T>(n, [&](int64_t c, int k) { return f(from + c, k); }) / Sum<T>(n);
    Vec<T> middle = set1(mean);
    Sum<T> squares = sum_row<T>(n, [&](int64_t c, int k) {
      Vec<T> d = f(from + c, k) - middle;
      return d * d;
    });
    Sum<T> apart = mean - all.mean, part = Sum<T>(n) / Sum<T>(from + n);
    all.mean = all.mean + apart * part;
    all.squares = all.squares + squares + apart * apart * part * Sum<T>(from);
  }
  return all;
}

}  // namespace
HONED_END_LEVEL
