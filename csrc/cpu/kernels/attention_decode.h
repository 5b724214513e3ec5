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

  // Asks for rows first to first + rows, for the second-level cache.
  HONED_INLINE void fetch(int first, int rows) const {
    for (int i = first; i < first + rows && i < count; ++i)
      for (int64_t d = 0; d < dim; d += 64 / int64_t(sizeof(T)))
        __builtin_prefetch(data + i * stride + d, 0, 2);
  }
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

// Keys that one vector of sums has room for; of those, how many are read at once; and vectors of a
// row of values that are summed at once.
template <int R>
constexpr int kKeysOf = kLanes / (R == 3 ? 4 : R);
template <int R>
constexpr int kKeysAtOnce = kKeysOf<R> < 2             ? 1
                            : R <= 2 || kKeysOf<R> < 4 ? 2
                                                       : 4;
template <int R>
constexpr int kVecsOf = kLanes == 16 ? (R <= 2 ? 8 : 4)
                                     : (R == 1   ? 8
                                        : R == 2 ? 4
                                                 : 2);

// score[r][k] = q[r] . keys[k], and up to kLanes - 1 more elements of score[r] are written; the
// rows of q are padded with zeros to whole vectors.
//
// One or two rows read the keys in order, which the processor foresees: all keys of a tile at once
// had half the bandwidth of a cold cache of 128 x f16. With more rows the tile is the faster, if it
// is asked for ahead; so are long rows, and values that are not read in order (Zen 4).
template <int R, class T>
HONED_INLINE void dot_keys(const Lines<T>& keys, const Lines<T>& values,
                           const float (*q)[kMaxHeadDim], float* const* score) {
  constexpr int kKeys = kKeysOf<R>, J = kKeysAtOnce<R>, kAhead = 16;
  bool fetch_keys = keys.dim * int64_t(sizeof(T)) >= (R >= 3 ? 256 : 512);
  bool fetch_values = values.dim > kVecsOf<R> * kLanes;
  vf sum[kLanes];
  for (int i = 0; i < kLanes; ++i) sum[i] = zero();
  for (int k = 0; k < keys.count; k += kKeys) {
    if (fetch_keys) keys.fetch(k + kAhead, kKeys);
    if (fetch_values) values.fetch(k, kKeys);
    int left = keys.count - k < kKeys ? keys.count - k : kKeys;
    for (int j = 0; j < left; j += J) {
      const T* p[J];
      vf acc[R][J];
      for (int n = 0; n < J; ++n) {
        p[n] = keys.data + (k + (j + n < left ? j + n : j)) * keys.stride;
        for (int r = 0; r < R; ++r) acc[r][n] = zero();
      }
      auto add = [&](int64_t i, int lanes) __attribute__((always_inline)) {
        vf key[J];
        for (int n = 0; n < J; ++n) key[n] = widen(p[n] + i, lanes);
        for (int r = 0; r < R; ++r) {
          vf row = load(q[r] + i);
          for (int n = 0; n < J; ++n) acc[r][n] = fmadd(key[n], row, acc[r][n]);
        }
      };
      int64_t i = 0;
      for (; i + 2 * kLanes <= keys.dim; i += 2 * kLanes) {
        add(i, kLanes);
        add(i + kLanes, kLanes);
      }
      if (i + kLanes <= keys.dim) {
        add(i, kLanes);
        i += kLanes;
      }
      if (i < keys.dim) add(i, int(keys.dim - i));
      for (int r = 0; r < R; ++r)
        for (int n = 0; n < J; ++n) sum[r * kKeys + j + n] = acc[r][n];
    }
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
    vf w[R];
    for (int r = 0; r < R; ++r) w[r] = set1(weight[r][k]);
    for (int v = 0; v < V; ++v) {
      vf value = widen(row + v * kLanes, v + 1 < V ? kLanes : n);
      for (int r = 0; r < R; ++r) sum[r][v] = fmadd(w[r], value, sum[r][v]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) store(to[r] + at + v * kLanes, sum[r][v], v + 1 < V ? kLanes : n);
}

// All of d: V vectors at a time, then four, then one.
template <int R, int V, class T>
HONED_INLINE void mix_rows(const Lines<T>& values, int begin, int end, const float* const* weight,
                           float* const* to, bool more) {
  int64_t dim = values.dim, d = 0;
  for (; d + V * kLanes <= dim; d += V * kLanes)
    mix<R, V>(values, begin, end, weight, to, d, kLanes, more);
  if (V > 4)
    for (; d + 4 * kLanes <= dim; d += 4 * kLanes)
      mix<R, 4>(values, begin, end, weight, to, d, kLanes, more);
  for (; d < dim; d += kLanes)
    mix<R, 1>(values, begin, end, weight, to, d, dim - d < kLanes ? int(dim - d) : kLanes, more);
}

// Whole rows of values where the registers have room for as many sums, so that they are read in
// order; of what is wider 16 rows at a time, which are then in the first-level cache.
template <int R, class T>
HONED_INLINE void mix_values(const Lines<T>& values, const float* const* weight, float* const* to,
                             bool more) {
  int step = values.dim > kVecsOf<R> * kLanes ? 16 : values.count;
  for (int begin = 0; begin < values.count; begin += step, more = true) {
    int end = begin + step < values.count ? begin + step : values.count;
    mix_rows<R, kVecsOf<R>>(values, begin, end, weight, to, more);
  }
}

}  // namespace
HONED_END_LEVEL
