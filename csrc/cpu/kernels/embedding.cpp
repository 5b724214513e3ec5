// out[n,:] = weight[ids[n],:], copied or converted, and the sums of its gradient.
#include "ops/embedding.h"

#include "cpu/simd/vec_f64.h"
#include "cpu/visit.h"

HONED_BEGIN_LEVEL

namespace {

template <class W, class Y, class Id>
void rows(const EmbeddingArgs& a, const Id* ids, int64_t begin, int64_t end) {
  for (int64_t n = begin; n < end; ++n) {
    const W* w = static_cast<const W*>(a.weight) + int64_t(ids[n]) * a.weight_stride;
    Y* y = static_cast<Y*>(a.out) + n * a.out_stride;
    if (a.dtype == a.out_dtype)
      __builtin_memcpy(y, w, size_t(a.cols) * sizeof(W));
    else
      for_lanes_of<W>(a.cols,
                      [&](int64_t i, int lanes) { store(y + i, load(w + i, lanes), lanes); });
  }
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
  visit_two(a.dtype, a.out_dtype, [&](auto w, auto y) {
    using W = typename decltype(w)::type;
    using Y = typename decltype(y)::type;
    if (a.ids_dtype == DType::i64)
      rows<W, Y>(a, static_cast<const int64_t*>(a.ids), begin, end);
    else
      rows<W, Y>(a, static_cast<const int32_t*>(a.ids), begin, end);
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
