// What the attention kernels share: rows in and out, masks, the exponential of a softmax.
#pragma once
#include "cpu/simd/math.h"
#include "cpu/visit.h"
#include "ops/scaled_dot_product_attention.h"

HONED_BEGIN_LEVEL
namespace {

// The largest score before any is seen. Not -infinity: a hidden key's weight is then 0 without a
// test.
[[maybe_unused]] constexpr float kLowest = -3.402823466e38f;
[[maybe_unused]] constexpr float kMinusInf = -__builtin_inff();

// attention_block_rows, inside the level.
HONED_INLINE int64_t block_rows(const AttentionArgs& a) {
  int64_t size = a.head_dim > a.value_dim ? a.head_dim : a.value_dim;
  return size <= 64 ? 64 : size <= 128 ? 32 : 16;
}

// Keys that query t may see: the first so many.
HONED_INLINE int64_t keys_end(const AttentionArgs& a, int64_t t) {
  int64_t end = t + a.offset + a.window_right + 1;
  return end < 0 ? 0 : end < a.kv_len ? end : a.kv_len;
}

HONED_INLINE bool none_of(const uint8_t* seen, int n) {
  uint64_t eight;
  for (; n >= 8; n -= 8, seen += 8) {
    __builtin_memcpy(&eight, seen, 8);
    if (eight) return false;
  }
  for (; n > 0; --n)
    if (*seen++) return false;
  return true;
}
HONED_INLINE bool all_of(const uint8_t* seen, int n) {
  uint64_t eight;
  for (; n >= 8; n -= 8, seen += 8) {
    __builtin_memcpy(&eight, seen, 8);
    if ((eight - 0x0101010101010101u) & ~eight & 0x8080808080808080u)
      return false;  // has a zero byte
  }
  for (; n > 0; --n)
    if (!*seen++) return false;
  return true;
}

// Start of a head of k or v.
HONED_INLINE const void* head(const void* data, const int64_t* stride, DType dtype, int64_t b,
                              int64_t h) {
  int64_t item = dtype == DType::f32 ? 4 : 2;
  return static_cast<const char*>(data) + (b * stride[0] + h * stride[1]) * item;
}

// to[d] = q[b, group h of key head g, t, d] * scale, zeros up to a whole vector
HONED_INLINE void load_query(const AttentionArgs& a, int64_t b, int64_t g, int64_t h, int64_t t,
                             vf scale, float* to) {
  int64_t at =
      b * a.q_stride[0] + (g * (a.heads / a.kv_heads) + h) * a.q_stride[1] + t * a.q_stride[2];
  visit_float(a.dtype, [&](auto tag) {
    const auto* q = static_cast<const typename decltype(tag)::type*>(a.q) + at;
    for_lanes(a.head_dim, [&](int64_t i, int n) { store(to + i, load(q + i, n) * scale); });
  });
}

HONED_INLINE void store_result(const AttentionArgs& a, int64_t b, int64_t h, int64_t t,
                               const float* from) {
  int64_t at = b * a.out_stride[0] + h * a.out_stride[1] + t * a.out_stride[2];
  visit_float(a.dtype, [&](auto tag) {
    auto* out = static_cast<typename decltype(tag)::type*>(a.out) + at;
    for_lanes(a.value_dim, [&](int64_t i, int n) { store(out + i, load(from + i, n), n); });
  });
}

// Key k0 of row (b, h, t) of a boolean mask.
HONED_INLINE const uint8_t* mask_row(const AttentionArgs& a, int64_t b, int64_t h, int64_t t,
                                     int64_t k0) {
  return static_cast<const uint8_t*>(a.mask.data) + b * a.mask.stride[0] + h * a.mask.stride[1] +
         t * a.mask.stride[2] + k0 * a.mask.stride[3];
}

// score[k * step] += mask[b, h, t, k0 + k], or -infinity where a boolean mask says no; at most
// kDecodeKeys
HONED_INLINE void add_mask(const AttentionArgs& a, int64_t b, int64_t h, int64_t t, int64_t k0,
                           int keys, float* score, int64_t step) {
  int64_t along = a.mask.stride[3];
  if (a.mask.dtype == DType::boolean) {
    const uint8_t* seen = mask_row(a, b, h, t, k0);
    if (along == 1 && all_of(seen, keys)) return;
    for (int k = 0; k < keys; ++k)
      if (!seen[k * along]) score[k * step] = kMinusInf;
    return;
  }
  alignas(64) float values[kDecodeKeys];
  int64_t at = b * a.mask.stride[0] + h * a.mask.stride[1] + t * a.mask.stride[2] + k0 * along;
  visit_float(a.mask.dtype, [&](auto tag) {
    const auto* mask = static_cast<const typename decltype(tag)::type*>(a.mask.data) + at;
    if (along == 1)
      for_lanes(keys, [&](int64_t i, int n) { store(values + i, load(mask + i, n), n); });
    else
      for (int k = 0; k < keys; ++k) store(values + k, load(mask + k * along, 1), 1);
  });
  for (int k = 0; k < keys; ++k) score[k * step] += values[k];
}

// vexp for x <= 0: 0 below -87.3, NaN stays NaN.
HONED_INLINE vf exp_of_negative(vf x) {
  const vf low = set1(-87.3365448f);
  vf clamped = vmax(low, x);
  vf n = round_even(clamped * set1(1.44269504f));
  vf r = fmadd(n, set1(-0.693359375f), clamped);
  r = fmadd(n, set1(2.12194440e-4f), r);
  vf p = set1(1.9875691500e-4f);
  p = fmadd(p, r, set1(1.3981999507e-3f));
  p = fmadd(p, r, set1(8.3334519073e-3f));
  p = fmadd(p, r, set1(4.1665795894e-2f));
  p = fmadd(p, r, set1(1.6666665459e-1f));
  p = fmadd(p, r, set1(5.0000001201e-1f));
  vf y = (fmadd(p * r, r, r) + set1(1.0f)) * exp2_integral(n);
  return select_less(x, low, zero(), y);
}

}  // namespace
HONED_END_LEVEL
