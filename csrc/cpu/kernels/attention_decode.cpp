// Attention of few queries: a pass over a chunk of keys and one over its values, both lying as they
// are, for up to four query rows at once; then the merge of the chunks.
#include "cpu/kernels/attention.h"

HONED_BEGIN_LEVEL

namespace {

constexpr int kRows = 4;  // query rows that share a pass

struct Chunk {
  int64_t b, g, first;  // batch, key head, first key
  int keys;
};

// Sums over the lanes of four vectors.
#if defined(__AVX2__)
HONED_INLINE __m128 reduce4(__m256 a, __m256 b, __m256 c, __m256 d) {
  __m256 s = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
  return _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
}
#else
HONED_INLINE __m128 reduce4(__m128 a, __m128 b, __m128 c, __m128 d) {
  _MM_TRANSPOSE4_PS(a, b, c, d);
  return _mm_add_ps(_mm_add_ps(a, b), _mm_add_ps(c, d));
}
#endif
#if defined(__AVX512F__)
HONED_INLINE __m256 halves(__m512 a) {
  return _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
}
HONED_INLINE __m128 reduce4(__m512 a, __m512 b, __m512 c, __m512 d) {
  return reduce4(halves(a), halves(b), halves(c), halves(d));
}
#endif

// Rows of keys or values as they lie in the cache.
template <class T>
struct Lines {
  const T* data;
  int64_t stride, dim;
  int count;

  // Asks for four rows, for the second-level cache.
  HONED_INLINE void fetch(int row) const {
    for (int i = row; i < row + 4 && i < count; ++i)
      for (int64_t d = 0; d < dim; d += 64 / int64_t(sizeof(T)))
        __builtin_prefetch(data + i * stride + d, 0, 2);
  }
};

// score[r][k] = q[r] . keys[k]; the rows of q are padded with zeros to whole vectors.
template <int R, class T>
HONED_INLINE void dot_keys(const Lines<T>& keys, const Lines<T>& values,
                           const float (*q)[kMaxHeadDim], float (*score)[kDecodeKeys]) {
  // With much arithmetic between two lines the processor's own prefetching falls behind: asking
  // ahead made 4 heads of 128 over a cold f32 cache 1.9 times as fast (Zen 4), and costs 10 to 20 %
  // where the cache is in the second level already. With fewer heads or smaller ones it gained
  // nothing.
  bool ahead = R >= 3 && keys.dim > 64;
  for (int k = 0; k < keys.count; k += 4) {
    if (ahead) {
      keys.fetch(k + 8);
      values.fetch(k);
    }
    const T* p[4];
    vf sum[R][4];
    for (int j = 0; j < 4; ++j) {
      p[j] = keys.data + (k + j < keys.count ? k + j : keys.count - 1) * keys.stride;
      for (int r = 0; r < R; ++r) sum[r][j] = zero();
    }
    for_lanes(keys.dim, [&](int64_t i, int n) {
      vf row[R];
      for (int r = 0; r < R; ++r) row[r] = load(q[r] + i);
      for (int j = 0; j < 4; ++j) {
        vf key = load(p[j] + i, n);
        for (int r = 0; r < R; ++r) sum[r][j] = fmadd(key, row[r], sum[r][j]);
      }
    });
    for (int r = 0; r < R; ++r)
      _mm_storeu_ps(score[r] + k, reduce4(sum[r][0], sum[r][1], sum[r][2], sum[r][3]));
  }
}

// to[r][d] = sum_k weight[r][k] * values[k][d] for V vectors of d from `at` on, the last one
// holding n; where k does not begin at 0, added to what is there.
template <int R, int V, class T>
HONED_INLINE void mix(const Lines<T>& values, int begin, int end,
                      const float (*weight)[kDecodeKeys], float* const* to, int64_t at, int n) {
  vf sum[R][V];
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v)
      sum[r][v] = begin ? load(to[r] + at + v * kLanes, v + 1 < V ? kLanes : n) : zero();
  for (int k = begin; k < end; ++k) {
    const T* row = values.data + k * values.stride + at;
    vf value[V];
    for (int v = 0; v < V; ++v) value[v] = load(row + v * kLanes, v + 1 < V ? kLanes : n);
    for (int r = 0; r < R; ++r) {
      vf w = set1(weight[r][k]);
      for (int v = 0; v < V; ++v) sum[r][v] = fmadd(w, value[v], sum[r][v]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) store(to[r] + at + v * kLanes, sum[r][v], v + 1 < V ? kLanes : n);
}

template <int R, class T>
HONED_INLINE void mix_values(const Lines<T>& values, const float (*weight)[kDecodeKeys],
                             float* const* to) {
  constexpr int kVecs = kLanes == 16 || R == 1 ? 4 : 2;  // accumulators within the registers
  int64_t dim = values.dim;
  // Rows that take more than one pass are passed over while they are in the first-level cache.
  int step = dim > kVecs * kLanes ? 16 : kDecodeKeys, begin = 0;
  do {
    int end = begin + step < values.count ? begin + step : values.count;
    int64_t d = 0;
    for (; d + kVecs * kLanes <= dim; d += kVecs * kLanes)
      mix<R, kVecs>(values, begin, end, weight, to, d, kLanes);
    for (; d < dim; d += kLanes)
      mix<R, 1>(values, begin, end, weight, to, d, dim - d < kLanes ? int(dim - d) : kLanes);
    begin = end;
  } while (begin < values.count);
}

// The scores of one row become weights relative to their largest; returns it and their sum.
HONED_INLINE void weigh(const AttentionArgs& a, const Chunk& c, int64_t h, int64_t t, float* score,
                        float* top, float* total) {
  if (a.softcap != 0.0f)
    for_lanes(c.keys, [&](int64_t i, int n) {
      store(score + i, set1(a.softcap) * vtanh(load(score + i, n) * set1(1.0f / a.softcap)), n);
    });
  if (a.key_mask) {
    const uint8_t* seen = a.key_mask + c.b * a.key_mask_stride + c.first;
    for (int k = 0; k < c.keys; ++k)
      if (!seen[k]) score[k] = kMinusInf;
  }
  if (a.mask.data) add_mask(a, c.b, h, t, c.first, c.keys, score, 1);
  for (int64_t k = keys_end(a, t) - c.first, from = k < 0 ? 0 : k; from < c.keys; ++from)
    score[from] = kMinusInf;
  vf most = set1(kLowest);
  for_lanes(c.keys, [&](int64_t i, int n) {
    most = vmax(keep_first(load(score + i, n), n, set1(kLowest)), most);
  });
  *top = reduce_max(most);
  vf sum = zero();
  for_lanes(c.keys, [&](int64_t i, int n) {
    vf weight = keep_first(exp_of_negative(load(score + i, n) - set1(*top)), n, zero());
    store(score + i, weight, n);
    sum = sum + weight;
  });
  *total = reduce_add(sum);
}

float* partial_of(const AttentionArgs& a, int64_t row, int64_t chunks, int64_t chunk) {
  return a.partial + (row * chunks + chunk) * (a.value_dim + 2);
}

// R query rows from `row` on, counted within the key head: row r is query r / group of head r %
// group.
template <int R, class T>
void rows(const AttentionArgs& a, const Chunk& c, int64_t row, int64_t chunks) {
  alignas(64) float q[R][kMaxHeadDim], score[R][kDecodeKeys], result[R][kMaxHeadDim];
  float top[R], total[R];
  float* to[R];
  int64_t group = a.heads / a.kv_heads;
  Lines<T> keys{
      static_cast<const T*>(head(a.k, a.k_stride, a.kv_dtype, c.b, c.g)) + c.first * a.k_stride[2],
      a.k_stride[2], a.head_dim, c.keys};
  Lines<T> values{
      static_cast<const T*>(head(a.v, a.v_stride, a.kv_dtype, c.b, c.g)) + c.first * a.v_stride[2],
      a.v_stride[2], a.value_dim, c.keys};
  for (int r = 0; r < R; ++r)
    load_query(a, c.b, c.g, (row + r) % group, (row + r) / group, set1(a.scale), q[r]);
  dot_keys<R>(keys, values, q, score);
  for (int r = 0; r < R; ++r) {
    int64_t h = c.g * group + (row + r) % group, t = (row + r) / group;
    weigh(a, c, h, t, score[r], &top[r], &total[r]);
    to[r] = chunks == 1
                ? result[r]
                : partial_of(a, (c.b * a.heads + h) * a.q_len + t, chunks, c.first / kDecodeKeys);
  }
  mix_values<R>(values, score, to);
  for (int r = 0; r < R; ++r) {
    if (chunks > 1) {
      to[r][a.value_dim] = top[r];
      to[r][a.value_dim + 1] = total[r];
      continue;
    }
    vf scale = set1(total[r] == 0.0f ? 0.0f : 1.0f / total[r]);
    for_lanes(a.value_dim,
              [&](int64_t i, int) { store(result[r] + i, load(result[r] + i) * scale); });
    store_result(a, c.b, c.g * group + (row + r) % group, (row + r) / group, result[r]);
  }
}

template <class T>
void chunk_of(const AttentionArgs& a, const Chunk& c, int64_t chunks) {
  int64_t count = a.heads / a.kv_heads * a.q_len, row = 0;
  for (; row + kRows <= count; row += kRows) rows<kRows, T>(a, c, row, chunks);
  if (count - row == 3) rows<3, T>(a, c, row, chunks);
  if (count - row == 2) rows<2, T>(a, c, row, chunks);
  if (count - row == 1) rows<1, T>(a, c, row, chunks);
}

HONED_INLINE int64_t chunks_of(const AttentionArgs& a) {
  int64_t chunks = (a.kv_len + kDecodeKeys - 1) / kDecodeKeys;
  return chunks < 1 ? 1 : chunks;
}

}  // namespace

void attention_decode(const AttentionArgs& a, int64_t begin, int64_t end) {
  int64_t chunks = chunks_of(a);
  visit_float(a.kv_dtype, [&](auto tag) {
    for (int64_t i = begin; i < end; ++i) {
      int64_t first = i % chunks * kDecodeKeys, left = a.kv_len - first;
      Chunk c{i / chunks / a.kv_heads, i / chunks % a.kv_heads, first,
              int(left < kDecodeKeys ? left : kDecodeKeys)};
      chunk_of<typename decltype(tag)::type>(a, c, chunks);
    }
  });
}

void attention_combine(const AttentionArgs& a, int64_t begin, int64_t end) {
  int64_t chunks = chunks_of(a);
  alignas(64) float result[kMaxHeadDim];
  for (int64_t i = begin; i < end; ++i) {
    float top = kLowest;
    for (int64_t c = 0; c < chunks; ++c) {
      float each = partial_of(a, i, chunks, c)[a.value_dim];
      top = each > top ? each : top;
    }
    for_lanes(a.value_dim, [&](int64_t d, int n) {
      vf sum = zero(), total = zero();
      for (int64_t c = 0; c < chunks; ++c) {
        const float* part = partial_of(a, i, chunks, c);
        vf fade = exp_of_negative(set1(part[a.value_dim] - top));
        sum = fmadd(fade, load(part + d, n), sum);
        total = fmadd(fade, set1(part[a.value_dim + 1]), total);
      }
      store(result + d, select_less(zero(), total, sum / total, total));
    });
    store_result(a, i / a.q_len / a.heads, i / a.q_len % a.heads, i % a.q_len, result);
  }
}

HONED_END_LEVEL
