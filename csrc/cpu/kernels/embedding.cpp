// out[n,:] = weight[ids[n],:], copied or converted, and the sums of its gradient.
#include "ops/embedding.h"

#include "cpu/simd/vec_f64.h"
#include "cpu/visit.h"

HONED_BEGIN_LEVEL

namespace {

HONED_INLINE int64_t id_of(const EmbeddingArgs& a, int64_t n) {
  return a.ids_dtype == DType::i64 ? static_cast<const int64_t*>(a.ids)[n]
                                   : static_cast<const int32_t*>(a.ids)[n];
}

// `vectors` of them side by side; the last of `lanes` lanes, the others whole
template <int vectors, class T>
HONED_INLINE void sums(const EmbeddingBackwardArgs& a, int64_t v, int64_t column, int lanes) {
  constexpr int kStep = kLanesOf<T>;
  Vec<T> sum[vectors] = {};
  for (int64_t k = a.first[v]; k < a.first[v + 1]; ++k) {
    const T* g = static_cast<const T*>(a.g) + a.places[k] * a.g_stride + column;
    for (int u = 0; u < vectors; ++u)
      sum[u] = sum[u] + load(g + u * kStep, u + 1 < vectors ? kStep : lanes);
  }
  T* dw = static_cast<T*>(a.dw) + v * a.cols + column;
  Vec<T> scale = set1(a.mean ? 1 / Sum<T>(a.first[v + 1] - a.first[v]) : Sum<T>(1));
  for (int u = 0; u < vectors; ++u)
    store(dw + u * kStep, sum[u] * scale, u + 1 < vectors ? kStep : lanes);
}

}  // namespace

void embedding(const EmbeddingArgs& a, int64_t begin, int64_t end) {
  visit_real(a.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    for (int64_t n = begin; n < end; ++n) {
      const T* w = static_cast<const T*>(a.weight) + id_of(a, n) * a.weight_stride;
      if (a.dtype == a.out_dtype) {
        __builtin_memcpy(static_cast<T*>(a.out) + n * a.out_stride, w, size_t(a.cols) * sizeof(T));
      } else if constexpr (sizeof(T) == 2) {
        float* y = static_cast<float*>(a.out) + n * a.out_stride;
        for_lanes(a.cols, [&](int64_t i, int lanes) { store(y + i, load(w + i, lanes), lanes); });
      }
    }
  });
}

void embedding_backward(const EmbeddingBackwardArgs& a, int64_t begin, int64_t end) {
  visit_real(a.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    constexpr int kStep = kLanesOf<T>;
    for (int64_t i = begin; i < end; ++i) {
      int64_t v = a.row[i % a.named], c = i / a.named * kEmbeddingColumns;
      int64_t last = c + kEmbeddingColumns < a.cols ? c + kEmbeddingColumns : a.cols;
      for (; c + 4 * kStep <= last; c += 4 * kStep) sums<4, T>(a, v, c, kStep);
      for (; c < last; c += kStep) sums<1, T>(a, v, c, int(last - c < kStep ? last - c : kStep));
    }
  });
}

HONED_END_LEVEL
