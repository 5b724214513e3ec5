// The products of attention_decode: up to four query rows with keys, and weights with values, both
// lying as they are.
#pragma once
#include "cpu/kernels/attention.h"

HONED_BEGIN_LEVEL
namespace {

// Room for what a whole vector of sums writes past the last key.
constexpr int kScores = kDecodeKeys + kLanes;

// Lane i: the sum over the lanes of v[i].
HONED_INLINE vf sums_of(vf (&v)[kLanes]) {
#if defined(__AVX512F__)
  __m512 four[4];
  for (int i = 0; i < 4; ++i) {
    __m512 *p = v + 4 * i, ab, cd;
    ab = _mm512_unpacklo_ps(p[0], p[1]) + _mm512_unpackhi_ps(p[0], p[1]);
    cd = _mm512_unpacklo_ps(p[2], p[3]) + _mm512_unpackhi_ps(p[2], p[3]);
    __m512d x = _mm512_castps_pd(ab), y = _mm512_castps_pd(cd);
    four[i] =
        _mm512_castpd_ps(_mm512_unpacklo_pd(x, y)) + _mm512_castpd_ps(_mm512_unpackhi_pd(x, y));
  }
  __m512 a =
      _mm512_shuffle_f32x4(four[0], four[1], 0x88) + _mm512_shuffle_f32x4(four[0], four[1], 0xdd);
  __m512 b =
      _mm512_shuffle_f32x4(four[2], four[3], 0x88) + _mm512_shuffle_f32x4(four[2], four[3], 0xdd);
  return _mm512_shuffle_f32x4(a, b, 0x88) + _mm512_shuffle_f32x4(a, b, 0xdd);
#elif defined(__AVX2__)
  __m256 a = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
  __m256 b = _mm256_hadd_ps(_mm256_hadd_ps(v[4], v[5]), _mm256_hadd_ps(v[6], v[7]));
  return _mm256_permute2f128_ps(a, b, 0x20) + _mm256_permute2f128_ps(a, b, 0x31);
#else
  _MM_TRANSPOSE4_PS(v[0], v[1], v[2], v[3]);
  return (v[0] + v[1]) + (v[2] + v[3]);
#endif
}

// Rows of keys or values as they lie in the cache.
template <class T>
struct Lines {
  const T* data;
  int64_t stride, dim;
  int count;
};

template <class T>
HONED_INLINE vf widen(const T* p, int n) {
  return load(p, n);
}
HONED_INLINE vf widen(const int8_t* p, int n) {
  if (n < kLanes) return load(p, n);
#if defined(__AVX512F__)
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)));
#elif defined(__AVX2__)
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)));
#else
  int bits;
  __builtin_memcpy(&bits, p, 4);
  __m128i x = _mm_cvtsi32_si128(bits);
  x = _mm_unpacklo_epi8(x, x);
  return _mm_cvtepi32_ps(_mm_srai_epi32(_mm_unpacklo_epi16(x, x), 24));
#endif
}

// score[r][k] = q[r] . keys[k], and up to kLanes - 1 more elements of score[r] are written; the
// rows of q are padded with zeros to whole vectors. As many keys at a time as give one vector of
// sums.
template <int R, class T>
HONED_INLINE void dot_keys(const Lines<T>& keys, const float (*q)[kMaxHeadDim],
                           float* const* score) {
  constexpr int kRoom = R == 3 ? 4 : R, kKeys = kLanes / kRoom;
  for (int k = 0; k < keys.count; k += kKeys) {
    const T* p[kKeys];
    vf sum[kLanes];
    for (int i = 0; i < kLanes; ++i) sum[i] = zero();
    for (int j = 0; j < kKeys; ++j)
      p[j] = keys.data + (k + j < keys.count ? k + j : keys.count - 1) * keys.stride;
    auto add = [&](int64_t i, int n) __attribute__((always_inline)) {
      vf row[R];
      for (int r = 0; r < R; ++r) row[r] = load(q[r] + i);
      for (int j = 0; j < kKeys; ++j) {
        vf key = widen(p[j] + i, n);
        for (int r = 0; r < R; ++r) sum[r * kKeys + j] = fmadd(key, row[r], sum[r * kKeys + j]);
      }
    };
    int64_t i = 0;
    for (; i + kLanes <= keys.dim; i += kLanes) add(i, kLanes);
    if (i < keys.dim) add(i, int(keys.dim - i));
    alignas(64) float all[kLanes];
    store(all, sums_of(sum));
    for (int r = 0; r < R; ++r) __builtin_memcpy(score[r] + k, all + r * kKeys, kKeys * 4);
  }
}

// to[r][d] = sum_k weight[r][k] * values[k][d] for V vectors of d from `at` on, the last one
// holding n; added to what is there where `more`.
template <int R, int V, class T>
HONED_INLINE void mix(const Lines<T>& values, int begin, int end, const float* const* weight,
                      float* const* to, int64_t at, int n, bool more) {
  vf sum[R][V];
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v)
      sum[r][v] = more ? load(to[r] + at + v * kLanes, v + 1 < V ? kLanes : n) : zero();
  for (int k = begin; k < end; ++k) {
    const T* row = values.data + k * values.stride + at;
    vf value[V];
    for (int v = 0; v < V; ++v) value[v] = widen(row + v * kLanes, v + 1 < V ? kLanes : n);
    for (int r = 0; r < R; ++r) {
      vf w = set1(weight[r][k]);
      for (int v = 0; v < V; ++v) sum[r][v] = fmadd(w, value[v], sum[r][v]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) store(to[r] + at + v * kLanes, sum[r][v], v + 1 < V ? kLanes : n);
}

template <int R, class T>
HONED_INLINE void mix_values(const Lines<T>& values, const float* const* weight, float* const* to,
                             bool more) {
  constexpr int kVecs = kLanes == 16 || R == 1 ? 4 : 2;  // accumulators within the registers
  int64_t dim = values.dim;
  // Rows that take more than one pass are passed over while they are in the first-level cache.
  int step = dim > kVecs * kLanes ? 16 : values.count;
  for (int begin = 0; begin < values.count; begin += step) {
    int end = begin + step < values.count ? begin + step : values.count;
    int64_t d = 0;
    for (; d + kVecs * kLanes <= dim; d += kVecs * kLanes)
      mix<R, kVecs>(values, begin, end, weight, to, d, kLanes, more);
    for (; d < dim; d += kLanes)
      mix<R, 1>(values, begin, end, weight, to, d, dim - d < kLanes ? int(dim - d) : kLanes, more);
    more = true;
  }
}

}  // namespace
HONED_END_LEVEL
