// Vectors of double, half as many lanes as vf has; + - * / and < work on them.
#pragma once
#include "cpu/simd/vec.h"

HONED_BEGIN_LEVEL
namespace {

typedef double vd __attribute__((vector_size(kLanes * 4)));
typedef double vd_anywhere __attribute__((vector_size(kLanes * 4), aligned(8), may_alias));
[[maybe_unused]] constexpr int kDoubles = kLanes / 2;

HONED_INLINE vd set1(double x) { return vd{} + x; }
HONED_INLINE vd load(const double* p) { return *reinterpret_cast<const vd_anywhere*>(p); }
HONED_INLINE vd load_first(const double* p, int n) {
  alignas(64) double lanes[kDoubles] = {};
  __builtin_memcpy(lanes, p, size_t(n) * 8);
  return load(lanes);
}
HONED_INLINE void store(double* p, vd v) { *reinterpret_cast<vd_anywhere*>(p) = v; }
HONED_INLINE void store_first(double* p, vd v, int n) {
  alignas(64) double lanes[kDoubles];
  store(lanes, v);
  __builtin_memcpy(p, lanes, size_t(n) * 8);
}
HONED_INLINE vd load(const double* p, int n) { return n == kDoubles ? load(p) : load_first(p, n); }
HONED_INLINE void store(double* p, vd v, int n) {
  if (n == kDoubles)
    store(p, v);
  else
    store_first(p, v, n);
}
HONED_INLINE vd fmadd(vd a, vd b, vd c) { return a * b + c; }  // contracted where the level has FMA
HONED_INLINE double scalar(double x) { return x; }
HONED_INLINE vd vmax(vd a, vd b) { return a > b ? a : b; }  // b where unordered
HONED_INLINE vd vmin(vd a, vd b) { return a < b ? a : b; }
HONED_INLINE vd select_less(vd a, vd b, vd x, vd y) { return a < b ? x : y; }
HONED_INLINE double reduce_add(vd a) {
  double sum = 0;
  for (int i = 0; i < kDoubles; ++i) sum += a[i];
  return sum;
}
HONED_INLINE double reduce_max(vd a) {
  double top = a[0];
  for (int i = 1; i < kDoubles; ++i) top = a[i] > top ? a[i] : top;
  return top;
}
// lanes >= n become fill
HONED_INLINE vd keep_first(vd a, int n, vd fill) {
  for (int i = n; i < kDoubles; ++i) a[i] = fill[i];
  return a;
}

// The vector of a scalar type, and what sums over elements of a storage type are made in.
template <class S>
struct Simd {
  using type = vf;
  static constexpr int lanes = kLanes;
};
template <>
struct Simd<double> {
  using type = vd;
  static constexpr int lanes = kDoubles;
};

template <class T>
struct SumOf {
  using type = float;
};
template <>
struct SumOf<double> {
  using type = double;
};
template <class T>
using Sum = typename SumOf<T>::type;
template <class T>
using Vec = typename Simd<Sum<T>>::type;  // what load(const T*) gives
template <class T>
constexpr int kLanesOf = Simd<Sum<T>>::lanes;

// for_lanes in the steps of load(const T*).
template <class T, class F>
HONED_INLINE void for_lanes_of(int64_t count, F&& body) {
  constexpr int kStep = kLanesOf<T>;
  int64_t i = 0;
  for (; i + kStep <= count; i += kStep) body(i, kStep);
  if (i < count) body(i, int(count - i));
}

}  // namespace
HONED_END_LEVEL
