// Vectors of float at the level's width. Everything here is in the level's own unnamed namespace
// and always inlined, so that no level's code can be linked into another's.
//
//   vf      kLanes floats; + - * / work on it        vi      kLanes int32
//   load(p), load(p, n)    from float, f16 or bf16 to vf; with n < kLanes the rest is zero, not
//   read store(p, v), store(p, v, n)    rounds to the pointer's type, nearest even
#pragma once
#include <immintrin.h>

#include <cstdint>

#include "core/dtype.h"

#define HONED_INLINE [[maybe_unused, gnu::always_inline]] inline
#define HONED_BEGIN_LEVEL namespace honed::cpu::HONED_LEVEL {
#define HONED_END_LEVEL }

#if defined(__AVX512F__)
#include "cpu/simd/vec_avx512.h"
#elif defined(__AVX2__)
#include "cpu/simd/vec_avx2.h"
#else
#include "cpu/simd/vec_baseline.h"
#endif

HONED_BEGIN_LEVEL
namespace {

HONED_INLINE void store(f16* p, vf v) { store_bits(p, to_f16(v)); }
HONED_INLINE void store(bf16* p, vf v) { store_bits(p, to_bf16(v)); }

HONED_INLINE float scalar(float x) { return x; }
HONED_INLINE float scalar(f16 x) {
  float lane[kLanes];
  store(lane, load_first(&x, 1));
  return lane[0];
}
HONED_INLINE float scalar(bf16 x) {
  uint32_t bits = uint32_t{x.bits} << 16;
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

// The first n lanes; a constant n = kLanes costs nothing.
template <class T>
HONED_INLINE vf load(const T* p, int n) {
  return n == kLanes ? load(p) : load_first(p, n);
}
template <class T>
HONED_INLINE void store(T* p, vf v, int n) {
  if (n == kLanes)
    store(p, v);
  else
    store_first(p, v, n);
}

// Calls body(i, n) for i = 0, kLanes, ... with n = kLanes, and a last one with what is left.
template <class F>
HONED_INLINE void for_lanes(int64_t count, F&& body) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) body(i, kLanes);
  if (i < count) body(i, int(count - i));
}

}  // namespace
HONED_END_LEVEL
