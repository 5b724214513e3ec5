// Copies token rows into the cache's pages, rounding to its type.
#include "cpu/visit.h"
#include "ops/scaled_dot_product_attention.h"

HONED_BEGIN_LEVEL

void cache_append(const CacheAppendArgs& a, int64_t begin, int64_t end) {
  visit_float(a.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    for (int64_t i = begin; i < end; ++i) {
      int64_t b = i / a.time, at = a.first + i % a.time;
      int64_t page = a.block_table[b * a.block_table_stride + at / a.page];
      for (int64_t h = 0; h < a.heads; ++h) {
        const float* from = a.from + i * a.from_stride + h * a.head_dim;
        T* to = static_cast<T*>(a.to) + page * a.to_page_stride + h * a.to_head_stride +
                at % a.page * a.head_dim;
        for_lanes(a.head_dim, [&](int64_t c, int n) { store(to + c, load(from + c, n), n); });
      }
    }
  });
}

HONED_END_LEVEL
