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

// The vector of a scalar type.
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

}  // namespace
HONED_END_LEVEL
