// Order statistics without sorting: bisection over the bits of numbers, one vector count or sum a
// step. Sums have one fixed order, so every level finds the same.
#pragma once
#include "cpu/simd/exp_f64.h"

HONED_BEGIN_LEVEL
namespace {

[[maybe_unused]] constexpr int kBlock = kExpBlock;
[[maybe_unused]] constexpr float kInfinity = __builtin_inff();

HONED_INLINE int64_t padded(int64_t n) { return (n + kBlock - 1) / kBlock * kBlock; }
// A product that no level fuses into an addition.
HONED_INLINE double product(double a, double b) {
  double p = a * b;
  asm("" : "+x"(p));
  return p;
}

// Orders as the float does, zeros being equal.
HONED_INLINE uint32_t key_of(float x) {
  x += 0.0f;
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
HONED_INLINE float value_of(uint32_t key) {
  uint32_t bits = key & 0x80000000u ? key ^ 0x80000000u : ~key;
  float x;
  __builtin_memcpy(&x, &bits, 4);
  return x;
}

// How many of x[0, n) are at least `least`; n is a multiple of kBlock.
HONED_INLINE int64_t count_from(const float* x, int64_t n, float least) {
  vf sum[2] = {zero(), zero()}, bound = set1(least);
  for (int64_t i = 0; i < n; i += 2 * kLanes)
    for (int u = 0; u < 2; ++u)
      sum[u] = sum[u] + select_less(load(x + i + u * kLanes), bound, zero(), set1(1.0f));
  return int64_t(reduce_add(sum[0] + sum[1]));
}

// A number that at least k of x[0, n) reach, and at most k + slack where ties do not forbid it:
// with slack 0 the same of x reach it as reach the k-th largest. n is a multiple of kBlock,
// 0 < k <= n, top the largest.
HONED_INLINE float reached_by(const float* x, int64_t n, int64_t k, int64_t slack, float top) {
  float low = -kInfinity, high = top;  // enough reach low; not yet known of high
  for (float step = 2.0f; step < 1e30f && low == -kInfinity; step *= 2.0f) {
    float at = top - step;
    int64_t count = count_from(x, n, at);
    if (count >= k) {
      low = at;
      if (count <= k + slack) return low;
    } else {
      high = at;
    }
  }
  for (int i = 0; i < 12 && low != -kInfinity; ++i) {  // by value: few steps where x are spread
    float at = 0.5f * low + 0.5f * high;
    int64_t count = count_from(x, n, at);
    if (count >= k) {
      low = at;
      if (count <= k + slack) return low;
    } else {
      high = at;
    }
  }
  uint32_t from = key_of(low), to = key_of(high) + 1;  // by bits: to the end
  while (to - from > 1) {
    uint32_t at = from + (to - from) / 2;
    int64_t count = count_from(x, n, value_of(at));
    if (count >= k) {
      from = at;
      if (count <= k + slack) break;
    } else {
      to = at;
    }
  }
  return value_of(from);
}

// Keys with weights; working memory of split(). Both end with room for 7 more.
struct Weighed {
  int64_t* key;
  double* weight;
  int64_t count;
};
struct Split {
  int64_t key;
  double below;  // weight of the lower keys
};

// The sum of the weights whose key is less, and how many those are. 8 sums, then one tree.
HONED_INLINE double weight_below(const Weighed& list, int64_t key, int64_t* count) {
  constexpr int kParts = 8 / kDoubles;
  vd sum[kParts] = {};
  vl less[kParts] = {};
  for (int64_t i = 0; i < list.count; i += 8)
    for (int p = 0; p < kParts; ++p) {
      vl k, w;
      __builtin_memcpy(&k, list.key + i + p * kDoubles, sizeof k);
      __builtin_memcpy(&w, list.weight + i + p * kDoubles, sizeof w);
      vl mask = k < (vl{} + key);
      sum[p] += (vd)(w & mask);
      less[p] -= mask;
    }
  double s[8];
  int64_t c[8], n = 0;
  __builtin_memcpy(s, sum, sizeof s);
  __builtin_memcpy(c, less, sizeof c);
  for (int64_t each : c) n += each;
  *count = n;
  return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

HONED_INLINE void pad(Weighed& list) {
  for (int64_t i = list.count; i % 8; ++i) {
    list.key[i] = INT64_MAX;
    list.weight[i] = 0.0;
  }
}

// The largest key below which the weight is at most `limit` (strict: less than). Spoils the list.
HONED_INLINE Split split(Weighed list, double limit, bool strict) {
  auto within = [&](double sum) { return strict ? sum < limit : sum <= limit; };
  int64_t from = INT64_MAX, to = 0;
  for (int64_t i = 0; i < list.count; ++i) {
    from = list.key[i] < from ? list.key[i] : from;
    to = list.key[i] > to ? list.key[i] : to;
  }
  ++to;
  pad(list);
  double passed = 0.0, below = 0.0;      // weight of what left the list; of the keys below `from`
  int64_t under = 0, over = list.count;  // keys of the list below `from`, below `to`
  while (to - from > 1) {
    int64_t at = from + (to - from) / 2, less;
    double sum = passed + weight_below(list, at, &less);
    if (within(sum)) {
      from = at;
      under = less;
      below = sum;
    } else {
      to = at;
      over = less;
    }
    if (list.count < 64 || over - under > list.count / 2) continue;
    int64_t n = 0;
    for (int64_t i = 0; i < list.count; ++i) {
      int64_t key = list.key[i];
      double weight = list.weight[i];
      list.key[n] = key;
      list.weight[n] = weight;
      n += key >= from && key < to;
    }
    passed = below;
    under = 0;
    over = list.count = n;
    pad(list);
  }
  return {from, below};
}

}  // namespace
HONED_END_LEVEL
