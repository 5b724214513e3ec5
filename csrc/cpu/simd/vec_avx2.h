// 8 lanes, with FMA and F16C.
#pragma once

HONED_BEGIN_LEVEL
namespace {

using vf = __m256;
using vi = __m256i;
[[maybe_unused]] constexpr int kLanes = 8;

HONED_INLINE __m256i first(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

HONED_INLINE vf zero() { return _mm256_setzero_ps(); }
HONED_INLINE vf set1(float x) { return _mm256_set1_ps(x); }
HONED_INLINE vf load(const float* p) { return _mm256_loadu_ps(p); }
HONED_INLINE vf load_first(const float* p, int n) { return _mm256_maskload_ps(p, first(n)); }
HONED_INLINE void store(float* p, vf v) { _mm256_storeu_ps(p, v); }
HONED_INLINE void store_first(float* p, vf v, int n) { _mm256_maskstore_ps(p, first(n), v); }

HONED_INLINE __m128i load_bits(const void* p) { return _mm_loadu_si128((const __m128i*)p); }
HONED_INLINE __m128i load_bits(const void* p, int n) {
  alignas(16) uint16_t lanes[8] = {};
  __builtin_memcpy(lanes, p, size_t(n) * 2);
  return _mm_load_si128((const __m128i*)lanes);
}
HONED_INLINE void store_bits(void* p, __m128i v) { _mm_storeu_si128((__m128i*)p, v); }
HONED_INLINE void store_bits(void* p, __m128i v, int n) {
  alignas(16) uint16_t lanes[8];
  _mm_store_si128((__m128i*)lanes, v);
  __builtin_memcpy(p, lanes, size_t(n) * 2);
}
HONED_INLINE vf from_f16(__m128i v) { return _mm256_cvtph_ps(v); }
HONED_INLINE vf from_bf16(__m128i v) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
}
HONED_INLINE __m128i to_f16(vf v) { return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT); }
HONED_INLINE __m128i to_bf16(vf v) {
  __m256i bits = _mm256_castps_si256(v);
  __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  // A NaN gets all bits.
  rounded = _mm256_or_si256(rounded, _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q)));
  const __m256i upper = _mm256_setr_epi8(2, 3, 6, 7, 10, 11, 14, 15, 2, 3, 6, 7, 10, 11, 14, 15,  //
                                         2, 3, 6, 7, 10, 11, 14, 15, 2, 3, 6, 7, 10, 11, 14, 15);
  __m256i packed = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(rounded, upper), 0x08);
  return _mm256_castsi256_si128(packed);
}
HONED_INLINE vf load(const f16* p) { return from_f16(load_bits(p)); }
HONED_INLINE vf load_first(const f16* p, int n) { return from_f16(load_bits(p, n)); }
HONED_INLINE vf load(const bf16* p) { return from_bf16(load_bits(p)); }
HONED_INLINE vf load_first(const bf16* p, int n) { return from_bf16(load_bits(p, n)); }
HONED_INLINE void store_first(f16* p, vf v, int n) { store_bits(p, to_f16(v), n); }
HONED_INLINE void store_first(bf16* p, vf v, int n) { store_bits(p, to_bf16(v), n); }

HONED_INLINE vf fmadd(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
HONED_INLINE vf vmax(vf a, vf b) { return _mm256_max_ps(a, b); }
HONED_INLINE vf vmin(vf a, vf b) { return _mm256_min_ps(a, b); }
HONED_INLINE vf vabs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
HONED_INLINE vf round_even(vf a) {
  return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
HONED_INLINE float reduce_add(vf a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}
HONED_INLINE float reduce_max(vf a) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps(s, s, 1)));
}
HONED_INLINE vf select_less(vf a, vf b, vf x, vf y) {
  return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_LT_OQ));
}
HONED_INLINE vf select_nan(vf x, vf y) {
  return _mm256_blendv_ps(y, x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
}
HONED_INLINE vf keep_first(vf a, int n, vf fill) {
  return _mm256_blendv_ps(fill, a, _mm256_castsi256_ps(first(n)));
}
HONED_INLINE vf copy_sign(vf magnitude, vf sign) {
  vf mask = _mm256_set1_ps(-0.0f);
  return _mm256_or_ps(_mm256_and_ps(mask, sign), _mm256_andnot_ps(mask, magnitude));
}
HONED_INLINE vf exp2_integral(vf n) {
  __m256i bits = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 23));
}
HONED_INLINE vf times_exp2(vf y, vf n) {
  vf half = round_even(n * set1(0.5f));
  return y * exp2_integral(half) * exp2_integral(n - half);
}
HONED_INLINE vf to_float(vi a) { return _mm256_cvtepi32_ps(a); }
HONED_INLINE vi to_int(vf a) { return _mm256_cvtps_epi32(a); }

HONED_INLINE vi load_int(const void* p) { return _mm256_loadu_si256((const __m256i*)p); }
HONED_INLINE void store_int(void* p, vi a) { _mm256_storeu_si256((__m256i*)p, a); }
HONED_INLINE vi set1_int(int32_t x) { return _mm256_set1_epi32(x); }
// The first n lanes as bytes; they fit.
HONED_INLINE void store_bytes(int8_t* p, vi a, int n) {
  __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  int64_t bytes = _mm_cvtsi128_si64(_mm_packs_epi16(words, words));
  __builtin_memcpy(p, &bytes, size_t(n));
}
// `count` bits of every lane, from bit `at` on
template <int count>
HONED_INLINE vi bits_of(vi a, int at) {
  return _mm256_and_si256(_mm256_srli_epi32(a, at), _mm256_set1_epi32((1 << count) - 1));
}
HONED_INLINE vi low_nibbles(vi a) { return _mm256_and_si256(a, _mm256_set1_epi8(15)); }
HONED_INLINE vi high_nibbles(vi a) { return low_nibbles(_mm256_srli_epi16(a, 4)); }
// a[i] + sum over the four bytes j of lane i of u[j] * s[j], u unsigned, s signed, exact
HONED_INLINE vi dot4(vi a, vi u, vi s) {
#ifdef __AVXVNNI__
  return _mm256_dpbusd_avx_epi32(a, u, s);
#else
  vi even = _mm256_madd_epi16(_mm256_and_si256(u, _mm256_set1_epi16(255)),
                              _mm256_srai_epi16(_mm256_slli_epi16(s, 8), 8));
  vi odd = _mm256_madd_epi16(_mm256_srli_epi16(u, 8), _mm256_srai_epi16(s, 8));
  return _mm256_add_epi32(a, _mm256_add_epi32(even, odd));
#endif
}
HONED_INLINE vf as_float(vi bits) { return _mm256_castsi256_ps(bits); }
// Elements 2 i and 2 i + 1 of bf16 pairs, and the pairs of two vectors that bf16 holds exactly
HONED_INLINE vf even_of_pairs(vi a) { return _mm256_castsi256_ps(_mm256_slli_epi32(a, 16)); }
HONED_INLINE vf odd_of_pairs(vi a) {
  return _mm256_castsi256_ps(_mm256_and_si256(a, _mm256_set1_epi32(int(0xffff0000u))));
}
HONED_INLINE vi pairs_of(vf even, vf odd) {
  return _mm256_or_si256(_mm256_srli_epi32(_mm256_castps_si256(even), 16),
                         _mm256_castps_si256(odd));
}

}  // namespace
HONED_END_LEVEL
