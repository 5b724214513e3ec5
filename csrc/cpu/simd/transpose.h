// Square blocks of float turned in registers, and sums across lanes.
#pragma once
#include "cpu/simd/vec.h"

HONED_BEGIN_LEVEL
namespace {

// Row i, column j <-> row j, column i of kLanes vectors.
HONED_INLINE void transpose(vf (&r)[kLanes]) {
#if defined(__AVX512F__)
  __m512d t[16];
  for (int i = 0; i < 16; i += 4) {
    __m512 a = _mm512_unpacklo_ps(r[i], r[i + 1]), b = _mm512_unpackhi_ps(r[i], r[i + 1]);
    __m512 c = _mm512_unpacklo_ps(r[i + 2], r[i + 3]), d = _mm512_unpackhi_ps(r[i + 2], r[i + 3]);
    t[i] = _mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(c));
    t[i + 1] = _mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(c));
    t[i + 2] = _mm512_unpacklo_pd(_mm512_castps_pd(b), _mm512_castps_pd(d));
    t[i + 3] = _mm512_unpackhi_pd(_mm512_castps_pd(b), _mm512_castps_pd(d));
  }
  // Now t[4 g + j] has column 4 q + j of rows 4 g.. in its quarter q.
  for (int j = 0; j < 4; ++j) {
    __m512 a = _mm512_castpd_ps(t[j]), b = _mm512_castpd_ps(t[4 + j]);
    __m512 c = _mm512_castpd_ps(t[8 + j]), d = _mm512_castpd_ps(t[12 + j]);
    __m512 ab_even = _mm512_shuffle_f32x4(a, b, 0x88), ab_odd = _mm512_shuffle_f32x4(a, b, 0xdd);
    __m512 cd_even = _mm512_shuffle_f32x4(c, d, 0x88), cd_odd = _mm512_shuffle_f32x4(c, d, 0xdd);
    r[j] = _mm512_shuffle_f32x4(ab_even, cd_even, 0x88);
    r[4 + j] = _mm512_shuffle_f32x4(ab_odd, cd_odd, 0x88);
    r[8 + j] = _mm512_shuffle_f32x4(ab_even, cd_even, 0xdd);
    r[12 + j] = _mm512_shuffle_f32x4(ab_odd, cd_odd, 0xdd);
  }
#elif defined(__AVX2__)
  __m256 t[8];
  for (int i = 0; i < 8; i += 4) {
    __m256 a = _mm256_unpacklo_ps(r[i], r[i + 1]), b = _mm256_unpackhi_ps(r[i], r[i + 1]);
    __m256 c = _mm256_unpacklo_ps(r[i + 2], r[i + 3]), d = _mm256_unpackhi_ps(r[i + 2], r[i + 3]);
    t[i] = _mm256_shuffle_ps(a, c, 0x44);
    t[i + 1] = _mm256_shuffle_ps(a, c, 0xee);
    t[i + 2] = _mm256_shuffle_ps(b, d, 0x44);
    t[i + 3] = _mm256_shuffle_ps(b, d, 0xee);
  }
  for (int j = 0; j < 4; ++j) {
    r[j] = _mm256_permute2f128_ps(t[j], t[4 + j], 0x20);
    r[4 + j] = _mm256_permute2f128_ps(t[j], t[4 + j], 0x31);
  }
#else
  _MM_TRANSPOSE4_PS(r[0], r[1], r[2], r[3]);
#endif
}

// Lanes added four apart until four are left.
HONED_INLINE __m128 fold_to_four(vf a) {
#if defined(__AVX512F__)
  __m256 half = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
  return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
#elif defined(__AVX2__)
  return _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
#else
  return a;
#endif
}

// The sums of four vectors.
HONED_INLINE __m128 reduce_four(vf a, vf b, vf c, vf d) {
  __m128 w = fold_to_four(a), x = fold_to_four(b), y = fold_to_four(c), z = fold_to_four(d);
  _MM_TRANSPOSE4_PS(w, x, y, z);
  return _mm_add_ps(_mm_add_ps(w, x), _mm_add_ps(y, z));
}

}  // namespace
HONED_END_LEVEL
