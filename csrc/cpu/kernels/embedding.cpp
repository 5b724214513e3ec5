// out[n,:] = weight[ids[n],:], copied or converted.
#include "ops/embedding.h"

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
      for_lanes(a.cols, [&](int64_t i, int lanes) { store(y + i, load(w + i, lanes), lanes); });
  }
}

}  // namespace

void embedding(const EmbeddingArgs& a, int64_t begin, int64_t end) {
  visit_float(a.dtype, [&](auto w) {
    visit_float(a.out_dtype, [&](auto y) {
      using W = typename decltype(w)::type;
      using Y = typename decltype(y)::type;
      if (a.ids_dtype == DType::i64)
        rows<W, Y>(a, static_cast<const int64_t*>(a.ids), begin, end);
      else
        rows<W, Y>(a, static_cast<const int32_t*>(a.ids), begin, end);
    });
  });
}

HONED_END_LEVEL
