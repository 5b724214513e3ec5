// Sums of f32 to 16 bits.
#include "ops/linear_cross_entropy.h"

#include "cpu/visit.h"

HONED_BEGIN_LEVEL

void linear_cross_entropy(const LinearCrossEntropyArgs& a, int64_t begin, int64_t end) {
  const int64_t first = begin * kRoundBlock,
                last = end * kRoundBlock < a.count ? end * kRoundBlock : a.count;
  visit_float(a.dtype, [&](auto t) {
    auto* to = static_cast<typename decltype(t)::type*>(a.to);
    for_lanes(last - first,
              [&](int64_t i, int n) { store(to + first + i, load(a.from + first + i, n), n); });
  });
}

HONED_END_LEVEL
