// Sums of columns in the order of rows, and weights widened to the type of sums.
#include "cpu/simd/vec_f64.h"
#include "cpu/visit.h"
#include "ops/_norm.h"

HONED_BEGIN_LEVEL

void column_sums(const ColumnSumsArgs& a, int64_t begin, int64_t end) {
  visit_real(a.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    const auto* from = static_cast<const Sum<T>*>(a.from);
    T* to = static_cast<T*>(a.to);
    int64_t first = begin * kSumColumns,
            last = end * kSumColumns < a.cols ? end * kSumColumns : a.cols;
    for_lanes_of<T>(last - first, [&](int64_t i, int n) {
      Vec<T> sum = set1(Sum<T>(0));
      for (int64_t r = 0; r < a.rows; ++r) sum = sum + load(from + r * a.cols + first + i, n);
      store(to + first + i, sum, n);
    });
  });
}

void widen(const WidenArgs& a, int64_t begin, int64_t end) {
  int64_t first = begin * kWidenItem,
          last = end * kWidenItem < a.count ? end * kWidenItem : a.count;
  visit_float(a.dtype, [&](auto t) {
    const auto* from = static_cast<const typename decltype(t)::type*>(a.from);
    for_lanes(last - first,
              [&](int64_t i, int n) { store(a.to + first + i, load(from + first + i, n), n); });
  });
}

HONED_END_LEVEL
