// y = x / (1 - p) where the element's random bits keep it, else 0.
#include "ops/dropout.h"

#include "cpu/simd/random.h"
#include "cpu/simd/vec_f64.h"
#include "cpu/visit.h"

HONED_BEGIN_LEVEL

namespace {

// Bits of the columns from the first on
struct Columns {
  vu low, high, next;
  HONED_INLINE Columns(uint64_t key, uint32_t column)
      : low(all_bits(uint32_t(key))), high(all_bits(uint32_t(key >> 32))), next(all_bits(column)) {
    for (int i = 0; i < kLanes; ++i) next[i] += uint32_t(i);
  }
  HONED_INLINE vu take() {
    vu bits = random_columns(low, high, next);
    next += kLanes;
    return bits;
  }
};

template <class T>
HONED_INLINE void part(const DropoutArgs& a, const T* x, T* y, int64_t count, Columns columns) {
  if constexpr (sizeof(T) == 8) {
    for_lanes(count, [&](int64_t i, int n) {
      vu bits = columns.take();
      for (int j = 0; j < n; ++j) y[i + j] = bits[j] >= a.threshold ? x[i + j] * a.scale : 0;
    });
  } else {
    vf scale = set1(float(a.scale));
    vu threshold = all_bits(a.threshold);
    for_lanes(count, [&](int64_t i, int n) {
      store(y + i, keep(load(x + i, n) * scale, columns.take(), threshold), n);
    });
  }
}

// Elements of which the first is number `at` of all.
template <class T>
void span(const DropoutArgs& a, const T* x, T* y, int64_t at, int64_t count) {
  while (count > 0) {
    int64_t row = at / kDropoutRow, column = at % kDropoutRow;
    int64_t n = kDropoutRow - column < count ? kDropoutRow - column : count;
    part(a, x, y, n, Columns(random_row_key(a.seed, uint64_t(row)), uint32_t(column)));
    x += n, y += n, at += n, count -= n;
  }
}

}  // namespace

void dropout(const DropoutArgs& a, int64_t begin, int64_t end) {
  visit_real(a.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    const T* x = static_cast<const T*>(a.x);
    T* y = static_cast<T*>(a.y);
    if (a.rows == 1) {
      int64_t first = begin * kDropoutBlock, last = end * kDropoutBlock;
      span(a, x + first, y + first, first, (last < a.cols ? last : a.cols) - first);
    } else {
      for (int64_t r = begin; r < end; ++r)
        span(a, x + r * a.x_stride, y + r * a.cols, r * a.cols, a.cols);
    }
  });
}

HONED_END_LEVEL
