// Square roots, correctly rounded.
#pragma once
#include "cpu/simd/vec_f64.h"

HONED_BEGIN_LEVEL
namespace {

#if defined(__AVX512F__)
HONED_INLINE vf vsqrt(vf x) { return _mm512_sqrt_ps(x); }
HONED_INLINE vd vsqrt(vd x) { return (vd)_mm512_sqrt_pd((__m512d)x); }
#elif defined(__AVX2__)
HONED_INLINE vf vsqrt(vf x) { return _mm256_sqrt_ps(x); }
HONED_INLINE vd vsqrt(vd x) { return (vd)_mm256_sqrt_pd((__m256d)x); }
#else
HONED_INLINE vf vsqrt(vf x) { return _mm_sqrt_ps(x); }
HONED_INLINE vd vsqrt(vd x) { return (vd)_mm_sqrt_pd((__m128d)x); }
#endif

}  // namespace
HONED_END_LEVEL
