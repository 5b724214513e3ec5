// A query row of attention in f64: its scores and its dropout.
#pragma once
#include "cpu/kernels/attention.h"
#include "cpu/simd/vec_f64.h"

HONED_BEGIN_LEVEL
namespace {

constexpr double kNone = -__builtin_inf();
constexpr double kLowestDouble = -1.7976931348623157e308;

HONED_INLINE double dot(const double* a, const double* b, int64_t n) {
  vd sum{};
  int64_t i = 0;
  for (; i + kDoubles <= n; i += kDoubles) sum = fmadd(load(a + i), load(b + i), sum);
  double total = 0;
  for (int lane = 0; lane < kDoubles; ++lane) total += sum[lane];
  for (; i < n; ++i) total += a[i] * b[i];
  return total;
}

double value_at(const AttentionMask& mask, int64_t at) {
  if (mask.dtype == DType::f64) return static_cast<const double*>(mask.data)[at];
  if (mask.dtype == DType::f32) return double(static_cast<const float*>(mask.data)[at]);
  if (mask.dtype == DType::f16) return double(scalar(static_cast<const f16*>(mask.data)[at]));
  if (mask.dtype == DType::bf16) return double(scalar(static_cast<const bf16*>(mask.data)[at]));
  return static_cast<const uint8_t*>(mask.data)[at] ? 0.0 : kNone;
}

struct WideRow {
  const AttentionArgs& a;
  Span span;
  int64_t h, t;

  HONED_INLINE double added(const AttentionMask& m, int64_t s) const {
    return value_at(m, span.b * m.stride[0] + h * m.stride[1] + t * m.stride[2] + s * m.stride[3]);
  }

  // The score of key s, whose elements are at k; slope: its derivative by scale * q . k.
  double score(int64_t s, const double* q, const double* k, double* slope = nullptr) const {
    if (a.key_mask && !a.key_mask[span.b * a.key_mask_stride + s]) return kNone;
    double x = a.wide.scale * dot(q, k, a.head_dim);
    if (a.wide.softcap != 0) {
      double tanh = __builtin_tanh(x / a.wide.softcap);
      x = a.wide.softcap * tanh;
      if (slope) *slope = 1 - tanh * tanh;
    }
    if (a.mask.data) x += added(a.mask, s);
    if (a.bias.data) x += added(a.bias, s);
    if (a.wide.alibi) {
      int64_t distance = t + span.offset - s;
      x -= a.wide.alibi[span.b * a.alibi_stride[0] + h * a.alibi_stride[1]] *
           double(distance < 0 ? -distance : distance);
    }
    return x;
  }

  // weight[i] = 0 or weight[i] / (1 - dropout) of key s + i
  void drop(int64_t s, int count, double* weight) const {
    uint64_t key = dropout_key(a, span, h, t);
    vu low = all_bits(uint32_t(key)), high = all_bits(uint32_t(key >> 32));
    uint32_t threshold = drop_threshold_of(a.dropout);
    double scale = a.wide.dropout < 1 ? 1 / (1 - a.wide.dropout) : 0;
    for (int i = 0; i < count; ++i) {
      uint32_t bits = random_columns(low, high, all_bits(uint32_t(s + i)))[0];
      weight[i] = bits >= threshold ? weight[i] * scale : 0;
    }
  }
};

}  // namespace
HONED_END_LEVEL
