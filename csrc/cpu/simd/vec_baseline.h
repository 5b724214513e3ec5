// 4 lanes of SSE2: what every x86-64 has.
#pragma once

HONED_BEGIN_LEVEL
namespace {

using vf = __m128;
using vi = __m128i;
[[maybe_unused]] constexpr int kLanes = 4;

HONED_INLINE vf zero() { return _mm_setzero_ps(); }
HONED_INLINE vf set1(float x) { return _mm_set1_ps(x); }
HONED_INLINE vf load(const float* p) { return _mm_loadu_ps(p); }
HONED_INLINE vf load_first(const float* p, int n) {
  alignas(16) float lanes[4] = {};
  __builtin_memcpy(lanes, p, size_t(n) * 4);
  return _mm_load_ps(lanes);
}
HONED_INLINE void store(float* p, vf v) { _mm_storeu_ps(p, v); }
HONED_INLINE void store_first(float* p, vf v, int n) {
  alignas(16) float lanes[4];
  _mm_store_ps(lanes, v);
  __builtin_memcpy(p, lanes, size_t(n) * 4);
}

// Four 16-bit values, zero-extended to 32 bits.
HONED_INLINE vi load_bits(const void* p) {
  return _mm_unpacklo_epi16(_mm_loadl_epi64((const __m128i*)p), _mm_setzero_si128());
}
HONED_INLINE vi load_bits(const void* p, int n) {
  alignas(16) uint16_t lanes[8] = {};
  __builtin_memcpy(lanes, p, size_t(n) * 2);
  return _mm_unpacklo_epi16(_mm_load_si128((const __m128i*)lanes), _mm_setzero_si128());
}
HONED_INLINE void store_bits(void* p, vi v, int n = 4) {
  alignas(16) int32_t wide[4];
  _mm_store_si128((__m128i*)wide, v);
  uint16_t lanes[4];
  for (int i = 0; i < 4; ++i) lanes[i] = uint16_t(wide[i]);
  __builtin_memcpy(p, lanes, size_t(n) * 2);
}
HONED_INLINE vf select(vi mask, vf x, vf y) {
  vf m = _mm_castsi128_ps(mask);
  return _mm_or_ps(_mm_and_ps(m, x), _mm_andnot_ps(m, y));
}
HONED_INLINE vi select(vi mask, vi x, vi y) {
  return _mm_or_si128(_mm_and_si128(mask, x), _mm_andnot_si128(mask, y));
}
HONED_INLINE vf from_f16(vi v) {
  vi sign = _mm_slli_epi32(_mm_and_si128(v, _mm_set1_epi32(0x8000)), 16);
  vi magnitude = _mm_and_si128(v, _mm_set1_epi32(0x7fff));
  // As a float with the exponent field moved, times 2^112: right for subnormals too.
  vf value = _mm_mul_ps(_mm_castsi128_ps(_mm_slli_epi32(magnitude, 13)), _mm_set1_ps(0x1p112f));
  vi special = _mm_cmpgt_epi32(magnitude, _mm_set1_epi32(0x7bff));  // infinity or NaN
  vi bits =
      _mm_or_si128(_mm_castps_si128(value), _mm_and_si128(special, _mm_set1_epi32(0x7f800000)));
  return _mm_castsi128_ps(_mm_or_si128(bits, sign));
}
HONED_INLINE vf from_bf16(vi v) { return _mm_castsi128_ps(_mm_slli_epi32(v, 16)); }
HONED_INLINE vi to_f16(vf v) {
  vi bits = _mm_castps_si128(v);
  vi sign = _mm_and_si128(_mm_srli_epi32(bits, 16), _mm_set1_epi32(0x8000));
  vi magnitude = _mm_and_si128(bits, _mm_set1_epi32(0x7fffffff));
  vi odd = _mm_and_si128(_mm_srli_epi32(magnitude, 13), _mm_set1_epi32(1));
  vi normal = _mm_srli_epi32(
      _mm_add_epi32(magnitude, _mm_add_epi32(odd, _mm_set1_epi32(0xfff - 0x38000000))), 13);
  // Below 2^-14: adding 0.5 rounds to a multiple of 2^-24.
  vi subnormal =
      _mm_sub_epi32(_mm_castps_si128(_mm_add_ps(_mm_castsi128_ps(magnitude), _mm_set1_ps(0.5f))),
                    _mm_set1_epi32(0x3f000000));
  vi is_small = _mm_cmplt_epi32(magnitude, _mm_set1_epi32(0x38800000));
  vi is_large = _mm_cmpgt_epi32(magnitude, _mm_set1_epi32(0x477fefff));
  vi is_nan = _mm_cmpgt_epi32(magnitude, _mm_set1_epi32(0x7f800000));
  vi result = select(is_small, subnormal, normal);
  result = select(is_large, _mm_set1_epi32(0x7c00), result);
  result = select(is_nan, _mm_set1_epi32(0x7e00), result);
  return _mm_or_si128(result, sign);
}
HONED_INLINE vi to_bf16(vf v) {
  vi bits = _mm_castps_si128(v);
  vi odd = _mm_and_si128(_mm_srli_epi32(bits, 16), _mm_set1_epi32(1));
  vi rounded = _mm_add_epi32(bits, _mm_add_epi32(odd, _mm_set1_epi32(0x7fff)));
  vi quiet = _mm_or_si128(bits, _mm_set1_epi32(0x400000));
  return _mm_srli_epi32(select(_mm_castps_si128(_mm_cmpunord_ps(v, v)), quiet, rounded), 16);
}
HONED_INLINE vf load(const f16* p) { return from_f16(load_bits(p)); }
HONED_INLINE vf load_first(const f16* p, int n) { return from_f16(load_bits(p, n)); }
HONED_INLINE vf load(const bf16* p) { return from_bf16(load_bits(p)); }
HONED_INLINE vf load_first(const bf16* p, int n) { return from_bf16(load_bits(p, n)); }
HONED_INLINE void store_first(f16* p, vf v, int n) { store_bits(p, to_f16(v), n); }
HONED_INLINE void store_first(bf16* p, vf v, int n) { store_bits(p, to_bf16(v), n); }

HONED_INLINE vf fmadd(vf a, vf b, vf c) { return _mm_add_ps(_mm_mul_ps(a, b), c); }
HONED_INLINE vf vmax(vf a, vf b) { return _mm_max_ps(a, b); }
HONED_INLINE vf vmin(vf a, vf b) { return _mm_min_ps(a, b); }
HONED_INLINE vf vabs(vf a) { return _mm_andnot_ps(_mm_set1_ps(-0.0f), a); }
HONED_INLINE float reduce_add(vf a) {
  a = _mm_add_ps(a, _mm_movehl_ps(a, a));
  return _mm_cvtss_f32(_mm_add_ss(a, _mm_shuffle_ps(a, a, 1)));
}
HONED_INLINE float reduce_max(vf a) {
  a = _mm_max_ps(a, _mm_movehl_ps(a, a));
  return _mm_cvtss_f32(_mm_max_ss(a, _mm_shuffle_ps(a, a, 1)));
}
HONED_INLINE vf select_less(vf a, vf b, vf x, vf y) {
  return select(_mm_castps_si128(_mm_cmplt_ps(a, b)), x, y);
}
HONED_INLINE vf select_nan(vf x, vf y) {
  return select(_mm_castps_si128(_mm_cmpunord_ps(x, x)), x, y);
}
HONED_INLINE vf keep_first(vf a, int n, vf fill) {
  return select(_mm_cmpgt_epi32(_mm_set1_epi32(n), _mm_setr_epi32(0, 1, 2, 3)), a, fill);
}
HONED_INLINE vf copy_sign(vf magnitude, vf sign) {
  vf mask = _mm_set1_ps(-0.0f);
  return _mm_or_ps(_mm_and_ps(mask, sign), _mm_andnot_ps(mask, magnitude));
}
HONED_INLINE vi to_int(vf a) { return _mm_cvtps_epi32(a); }
HONED_INLINE vf to_float(vi a) { return _mm_cvtepi32_ps(a); }
// For |a| < 2^31, as all callers have it.
HONED_INLINE vf round_even(vf a) { return to_float(to_int(a)); }
HONED_INLINE vf exp2_integral(vf n) {
  return _mm_castsi128_ps(_mm_slli_epi32(_mm_add_epi32(to_int(n), _mm_set1_epi32(127)), 23));
}
HONED_INLINE vf times_exp2(vf y, vf n) {
  vf half = round_even(n * set1(0.5f));
  return y * exp2_integral(half) * exp2_integral(n - half);
}

HONED_INLINE vi load_int(const void* p) { return _mm_loadu_si128((const __m128i*)p); }
HONED_INLINE void store_int(void* p, vi a) { _mm_storeu_si128((__m128i*)p, a); }
HONED_INLINE vi set1_int(int32_t x) { return _mm_set1_epi32(x); }
// The first n lanes as bytes; they fit.
HONED_INLINE void store_bytes(int8_t* p, vi a, int n) {
  __m128i words = _mm_packs_epi32(a, a);
  int32_t bytes = _mm_cvtsi128_si32(_mm_packs_epi16(words, words));
  __builtin_memcpy(p, &bytes, size_t(n));
}
// `count` bits of every lane, from bit `at` on
template <int count>
HONED_INLINE vi bits_of(vi a, int at) {
  return _mm_and_si128(_mm_srli_epi32(a, at), _mm_set1_epi32((1 << count) - 1));
}
HONED_INLINE vi low_nibbles(vi a) { return _mm_and_si128(a, _mm_set1_epi8(15)); }
HONED_INLINE vi high_nibbles(vi a) { return low_nibbles(_mm_srli_epi16(a, 4)); }
// a[i] + sum over the four bytes j of lane i of u[j] * s[j], u unsigned, s signed, exact
HONED_INLINE vi dot4(vi a, vi u, vi s) {
  vi even = _mm_madd_epi16(_mm_and_si128(u, _mm_set1_epi16(255)),
                           _mm_srai_epi16(_mm_slli_epi16(s, 8), 8));
  vi odd = _mm_madd_epi16(_mm_srli_epi16(u, 8), _mm_srai_epi16(s, 8));
  return _mm_add_epi32(a, _mm_add_epi32(even, odd));
}
HONED_INLINE vf as_float(vi bits) { return _mm_castsi128_ps(bits); }
// Elements 2 i and 2 i + 1 of bf16 pairs, and the pairs of two vectors that bf16 holds exactly
HONED_INLINE vf even_of_pairs(vi a) { return _mm_castsi128_ps(_mm_slli_epi32(a, 16)); }
HONED_INLINE vf odd_of_pairs(vi a) {
  return _mm_castsi128_ps(_mm_and_si128(a, _mm_set1_epi32(int(0xffff0000u))));
}
HONED_INLINE vi pairs_of(vf even, vf odd) {
  return _mm_or_si128(_mm_srli_epi32(_mm_castps_si128(even), 16), _mm_castps_si128(odd));
}

}  // namespace
HONED_END_LEVEL
