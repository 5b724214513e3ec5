// 16 lanes.
#pragma once

HONED_BEGIN_LEVEL
namespace {

using vf = __m512;
using vi = __m512i;
[[maybe_unused]] constexpr int kLanes = 16;

HONED_INLINE __mmask16 first(int n) { return __mmask16((1u << n) - 1u); }

HONED_INLINE vf zero() { return _mm512_setzero_ps(); }
HONED_INLINE vf set1(float x) { return _mm512_set1_ps(x); }
HONED_INLINE vf load(const float* p) { return _mm512_loadu_ps(p); }
HONED_INLINE vf load_first(const float* p, int n) { return _mm512_maskz_loadu_ps(first(n), p); }
HONED_INLINE void store(float* p, vf v) { _mm512_storeu_ps(p, v); }
HONED_INLINE void store_first(float* p, vf v, int n) { _mm512_mask_storeu_ps(p, first(n), v); }

HONED_INLINE __m256i load_bits(const void* p) { return _mm256_loadu_si256((const __m256i*)p); }
HONED_INLINE __m256i load_bits(const void* p, int n) {
  return _mm256_maskz_loadu_epi16(first(n), p);
}
HONED_INLINE void store_bits(void* p, __m256i v) { _mm256_storeu_si256((__m256i*)p, v); }
HONED_INLINE vf from_f16(__m256i v) { return _mm512_cvtph_ps(v); }
HONED_INLINE vf from_bf16(__m256i v) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
}
HONED_INLINE __m256i to_f16(vf v) { return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT); }
// bits + 0x8000 less one where bit 16 is 0; of a NaN the quiet one, whose token is 0 or 1 (response 2);
// then the upper half of every lane.
HONED_INLINE __m256i to_bf16(vf v) {
  __m512i bits = _mm512_castps_si512(v);
  __m512i less = _mm512_ternarylogic_epi32(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1),
                                           _mm512_set1_epi32(-0x8000), 0xae);  // ~a & b | c
  vf rounded = _mm512_castsi512_ps(_mm512_sub_epi32(bits, less));
  rounded = _mm512_fixupimm_ps(rounded, v, _mm512_set1_epi32(0x22), 0);
  const __m512i upper = _mm512_set_epi16(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1,
                                         31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
  return _mm512_castsi512_si256(_mm512_permutexvar_epi16(upper, _mm512_castps_si512(rounded)));
}
HONED_INLINE vf load(const f16* p) { return from_f16(load_bits(p)); }
HONED_INLINE vf load_first(const f16* p, int n) { return from_f16(load_bits(p, n)); }
HONED_INLINE vf load(const bf16* p) { return from_bf16(load_bits(p)); }
HONED_INLINE vf load_first(const bf16* p, int n) { return from_bf16(load_bits(p, n)); }
HONED_INLINE void store_first(f16* p, vf v, int n) {
  _mm256_mask_storeu_epi16(p, first(n), to_f16(v));
}
HONED_INLINE void store_first(bf16* p, vf v, int n) {
  _mm256_mask_storeu_epi16(p, first(n), to_bf16(v));
}

HONED_INLINE vf fmadd(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }  // a * b + c
HONED_INLINE vf vmax(vf a, vf b) { return _mm512_max_ps(a, b); }              // b where unordered
HONED_INLINE vf vmin(vf a, vf b) { return _mm512_min_ps(a, b); }
HONED_INLINE vf vabs(vf a) { return _mm512_abs_ps(a); }
HONED_INLINE vf round_even(vf a) {
  return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
HONED_INLINE float reduce_add(vf a) { return _mm512_reduce_add_ps(a); }
HONED_INLINE float reduce_max(vf a) { return _mm512_reduce_max_ps(a); }
// a < b ? x : y, lane by lane (y where unordered)
HONED_INLINE vf select_less(vf a, vf b, vf x, vf y) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
}
// x where x is NaN, else y
HONED_INLINE vf select_nan(vf x, vf y) {
  return _mm512_mask_mov_ps(y, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), x);
}
// lanes >= n become fill
HONED_INLINE vf keep_first(vf a, int n, vf fill) { return _mm512_mask_blend_ps(first(n), fill, a); }
HONED_INLINE vf copy_sign(vf magnitude, vf sign) {
  __m512i mask = _mm512_set1_epi32(int(0x80000000u));
  return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(mask, _mm512_castps_si512(sign),
                                                       _mm512_castps_si512(magnitude), 0xca));
}
// 2^n for an integral n in [-126, 127]
HONED_INLINE vf exp2_integral(vf n) {
  __m512i bits = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
  return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 23));
}
// y 2^n for an integral n in [-252, 254]
HONED_INLINE vf times_exp2(vf y, vf n) { return _mm512_scalef_ps(y, n); }
HONED_INLINE vf to_float(vi a) { return _mm512_cvtepi32_ps(a); }
HONED_INLINE vi to_int(vf a) { return _mm512_cvtps_epi32(a); }  // nearest even

HONED_INLINE vi load_int(const void* p) { return _mm512_loadu_si512(p); }
HONED_INLINE void store_int(void* p, vi a) { _mm512_storeu_si512(p, a); }
HONED_INLINE vi set1_int(int32_t x) { return _mm512_set1_epi32(x); }
// The first n lanes as bytes; they fit.
HONED_INLINE void store_bytes(int8_t* p, vi a, int n) {
  _mm_mask_storeu_epi8(p, first(n), _mm512_cvtepi32_epi8(a));
}
// `count` bits of every lane, from bit `at` on
template <int count>
HONED_INLINE vi bits_of(vi a, int at) {
  return _mm512_and_si512(_mm512_srli_epi32(a, at), _mm512_set1_epi32((1 << count) - 1));
}
HONED_INLINE vi low_nibbles(vi a) { return _mm512_and_si512(a, _mm512_set1_epi8(15)); }
HONED_INLINE vi high_nibbles(vi a) { return low_nibbles(_mm512_srli_epi16(a, 4)); }
// a[i] + sum over the four bytes j of lane i of u[j] * s[j], u unsigned, s signed, exact
HONED_INLINE vi dot4(vi a, vi u, vi s) {
#ifdef __AVX512VNNI__
  return _mm512_dpbusd_epi32(a, u, s);
#else
  vi even = _mm512_madd_epi16(_mm512_and_si512(u, _mm512_set1_epi16(255)),
                              _mm512_srai_epi16(_mm512_slli_epi16(s, 8), 8));
  vi odd = _mm512_madd_epi16(_mm512_srli_epi16(u, 8), _mm512_srai_epi16(s, 8));
  return _mm512_add_epi32(a, _mm512_add_epi32(even, odd));
#endif
}
HONED_INLINE vf as_float(vi bits) { return _mm512_castsi512_ps(bits); }
// Elements 2 i and 2 i + 1 of bf16 pairs, and the pairs of two vectors that bf16 holds exactly
HONED_INLINE vf even_of_pairs(vi a) { return _mm512_castsi512_ps(_mm512_slli_epi32(a, 16)); }
HONED_INLINE vf odd_of_pairs(vi a) {
  return _mm512_castsi512_ps(_mm512_and_si512(a, _mm512_set1_epi32(int(0xffff0000u))));
}
HONED_INLINE vi pairs_of(vf even, vf odd) {
  return _mm512_or_si512(_mm512_srli_epi32(_mm512_castps_si512(even), 16),
                         _mm512_castps_si512(odd));
}
#ifdef __AVX512BF16__
// a[i] + x[2 i] w[2 i] + x[2 i + 1] w[2 i + 1]
HONED_INLINE vf dot2(vf a, vi x, vi w) { return _mm512_dpbf16_ps(a, (__m512bh)(x), (__m512bh)(w)); }
#endif

}  // namespace
HONED_END_LEVEL
