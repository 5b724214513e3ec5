// core/rng.h's generator in vectors: the same bits.
#pragma once
#include "cpu/simd/vec.h"

HONED_BEGIN_LEVEL
namespace {

typedef uint32_t vu __attribute__((vector_size(kLanes * 4)));

HONED_INLINE vu all_bits(uint32_t x) { return vu{} + x; }
HONED_INLINE vu load_bits32(const uint32_t* p) {
  vu v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

HONED_INLINE uint64_t random_mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}
// random_bits(seed, row)
HONED_INLINE uint64_t random_row_key(uint64_t seed, uint64_t row) {
  return random_mix(random_mix(seed + 0x9e3779b97f4a7c15u) + (row + 1) * 0x9e3779b97f4a7c15u);
}

// random_column of the row keys whose halves are low and high
HONED_INLINE vu random_columns(vu low, vu high, vu column) {
  vu x = column + low;
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15) ^ high) * 0x846ca68bu;
  return x ^ (x >> 16);
}

// drop_threshold(p), and nothing kept at p = 1 but what is then multiplied by 0 (kept_scale)
HONED_INLINE uint32_t drop_threshold_of(float p) {
  return p < 1.0f ? uint32_t(double(p) * 4294967296.0) : 0xffffffffu;
}
HONED_INLINE float kept_scale(float p) { return p < 1.0f ? 1.0f / (1.0f - p) : 0.0f; }

// x where its bits are at least the threshold, else 0
HONED_INLINE vf keep(vf x, vu bits, vu threshold) { return (vf)((vu)x & (vu)(bits >= threshold)); }

}  // namespace
HONED_END_LEVEL
