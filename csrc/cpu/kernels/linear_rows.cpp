// Rows of x to int8 with a scale and a sum a group.
#include "cpu/visit.h"
#include "ops/linear.h"

HONED_BEGIN_LEVEL

namespace {

template <class T>
void quantize(const T* x, int64_t count, int64_t padded, int8_t* q, float* scale, int32_t* q_sum) {
  vf largest = zero();
  for_lanes(count, [&](int64_t i, int n) { largest = vmax(largest, vabs(load(x + i, n))); });
  float top = reduce_max(largest);
  if (!(top >= 0x1p-120f)) top = 0;  // 127 / top would be infinite
  vf inverse = set1(top > 0 ? 127.0f / top : 0.0f);
  vf sum = zero(), odd = zero();  // odd becomes NaN where an element is NaN or infinite
  for_lanes(count, [&](int64_t i, int n) {
    vf value = load(x + i, n), r = round_even(value * inverse);
    odd = odd + (value - value);
    sum = sum + r;  // at most kLongestGroup * 127 < 2^24: exact
    store_bytes(q + i, to_int(r), n);
  });
  for (int64_t i = count; i < padded; ++i) q[i] = 0;
  float check = reduce_add(odd);
  *scale = check == 0 ? top / 127.0f : check;
  *q_sum = check == 0 ? int32_t(reduce_add(sum)) : 0;
}

template <class T>
void rows(const LinearRowsArgs& a, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const T* x = static_cast<const T*>(a.x) + r * a.x_stride;
    int64_t groups = (a.k_padded + a.group - 1) / a.group;
    for (int64_t g = 0; g < groups; ++g) {
      int64_t k = g * a.group, left = a.k - k, left_padded = a.k_padded - k;
      quantize(x + k, left < a.group ? left : a.group,
               left_padded < a.group ? left_padded : a.group, a.q + r * a.q_stride + k,
               a.scale + r * groups + g, a.sum + r * groups + g);
      a.sum[r * groups + g] *= a.sum_times;
    }
  }
}

}  // namespace

void linear_rows(const LinearRowsArgs& a, int64_t begin, int64_t end) {
  visit_float(a.dtype, [&](auto t) { rows<typename decltype(t)::type>(a, begin, end); });
}

HONED_END_LEVEL
