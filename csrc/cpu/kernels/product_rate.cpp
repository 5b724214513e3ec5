// Times the instructions that products can be made of.
#include "cpu/kernels/linear_amx.h"
#include "cpu/simd/vec.h"
#include "ops/_product_rate.h"

HONED_BEGIN_LEVEL

namespace {

[[maybe_unused]] constexpr int kChains = 12;

#ifdef __AVX512BF16__
// N sums with names of their own: GCC 12 keeps an array of them in memory.
template <int N, class V>
struct Chains {
  V sum;
  Chains<N - 1, V> rest;
  HONED_INLINE void start(V value) {
    sum = value;
    rest.start(value);
  }
  template <class F>
  HONED_INLINE void step(F& once) {
    sum = once(sum);
    asm volatile("" : "+v"(sum));  // every step is made
    rest.step(once);
  }
};
template <class V>
struct Chains<0, V> {
  HONED_INLINE void start(V) {}
  template <class F>
  HONED_INLINE void step(F&) {}
};

// Ticks of `steps` instructions; V: a vector of sums.
template <class V, class F>
double ticks(int64_t steps, V start, F&& once) {
  Chains<kChains, V> chains;
  chains.start(start);
  uint64_t begin = __rdtsc();
  for (int64_t i = 0; i < steps; i += kChains) chains.step(once);
  return double(__rdtsc() - begin);
}
#endif

#ifdef HONED_TILES
// Ticks of `steps` times a tile of rows with a panel, from the first cache.
template <bool kInt>
double tile_ticks(int64_t steps) {
  constexpr int kSteps = 8;
  alignas(
      64) static const uint8_t x[kTileRows * kTileBytes * kSteps] = {},
                                                          w[kTileRows * kWeightRow * kSteps] = {};
  const uint8_t* const from[2] = {x, x};
  configure_tiles(kTileRows);
  uint64_t begin = __rdtsc();
  for (int64_t i = 0; i < steps; i += kSteps)
    add_tiles<kInt, 1>(from, kTileBytes * kSteps, w, kSteps);
  double passed = double(__rdtsc() - begin);
  release_tiles();
  return passed;
}
#endif

}  // namespace

void product_rate(const ProductRateArgs& a, int64_t begin, int64_t end) {
  [[maybe_unused]] ProductRates& r = *a.ticks;
  [[maybe_unused]] const int64_t steps = (end - begin) / kChains * kChains;
#ifdef __AVX512BF16__
  vf x = set1(0.5f);
  vi pair = set1_int(0x3f003f00);
  asm("" : "+v"(x), "+v"(pair));
  r.fma = ticks(steps, zero(), [&](vf s) { return fmadd(x, x, s); });
  r.dot2 = ticks(steps, zero(), [&](vf s) { return dot2(s, pair, pair); });
  r.dot4 = ticks(steps, set1_int(0), [&](vi s) { return dot4(s, pair, pair); });
#endif
#ifdef __AVX512FP16__
  __m512h half = _mm512_set1_ph(_Float16(0.5f));
  asm("" : "+v"(half));
  r.half_fma =
      ticks(steps, _mm512_setzero_ph(), [&](__m512h s) { return _mm512_fmadd_ph(half, half, s); });
#endif
#ifdef HONED_TILES
  r.tile2 = tile_ticks<false>(steps / 32) * 32;
  r.tile4 = tile_ticks<true>(steps / 32) * 32;
#endif
}

HONED_END_LEVEL
