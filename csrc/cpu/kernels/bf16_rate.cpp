// Times the dot instruction of bf16 against the FMA of f32.
#include "cpu/simd/vec.h"
#include "ops/matmul.h"

HONED_BEGIN_LEVEL

namespace {

#ifdef __AVX512BF16__
constexpr int kChains = 12;

template <class F>
uint64_t ticks(int64_t steps, F&& step) {
  vf sum[kChains];
  for (vf& s : sum) s = zero();
  uint64_t start = __rdtsc();
  for (int64_t i = 0; i < steps; ++i) {
    for (vf& s : sum) s = step(s);
    for (vf& s : sum) asm("" : "+v"(s));  // the sums stay in registers, every step is made
  }
  return __rdtsc() - start;
}
#endif

}  // namespace

void bf16_rate(const Bf16RateArgs& a, int64_t begin, int64_t end) {
#ifdef __AVX512BF16__
  vf x = set1(0.5f);
  vi pair = set1_int(0x3f003f00);
  asm("" : "+v"(x), "+v"(pair));
  *a.fma_ticks = ticks(end - begin, [&](vf s) { return fmadd(x, x, s); });
  *a.dot_ticks = ticks(end - begin, [&](vf s) { return dot2(s, pair, pair); });
#else
  (void)a, (void)begin, (void)end;
#endif
}

HONED_END_LEVEL
