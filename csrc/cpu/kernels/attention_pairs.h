// bf16 keys, values and weights as pairs along what a product sums, for dot instructions.
#pragma once
#include "cpu/kernels/attention_product.h"

#ifdef __AVX512BF16__
HONED_BEGIN_LEVEL
namespace {

// Keys s to s + count: where they lie, or with 0 after an odd head size and, of several pages, one
// after the other.
inline Left<bf16> key_pairs(const AttentionArgs& a, const Span& span, int64_t g, int64_t s,
                            int64_t count, bf16* buffer) {
  int64_t dim = a.head_dim, even = dim + dim % 2, stride = a.k_stride[2];
  for (int64_t done = 0; done < count;) {
    KeyRun run = key_run(a, span, g, s + done);
    const auto* from = reinterpret_cast<const bf16*>(run.k);
    int64_t rows = smaller(run.count, count - done);
    if (rows == count && dim == even) return {from, stride, 2};
    for (int64_t r = 0; r < rows; ++r) {
      bf16* to = buffer + (done + r) * even;
      to[even - 1] = bf16{0};
      __builtin_memcpy(to, from + r * stride, size_t(dim) * 2);
    }
    done += rows;
  }
  return {buffer, even, 2};
}

// to[2 d], to[2 d + 1] = a[d], b[d]; b may be nullptr: 0
inline void interleave(const bf16* a, const bf16* b, int64_t count, bf16* to) {
  alignas(64) static constexpr int16_t kLow[32] = {0,  32, 1,  33, 2,  34, 3,  35, 4,  36, 5,
                                                   37, 6,  38, 7,  39, 8,  40, 9,  41, 10, 42,
                                                   11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  __m512i low = _mm512_load_si512(kLow), high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
  for (int64_t d = 0; d < count; d += 32) {
    int n = int(smaller(32, count - d));
    auto first = __mmask32(n == 32 ? ~0u : (1u << n) - 1u);
    __m512i x = _mm512_maskz_loadu_epi16(first, a + d);
    __m512i y = b ? _mm512_maskz_loadu_epi16(first, b + d) : _mm512_setzero_si512();
    _mm512_storeu_si512(to + 2 * d, _mm512_permutex2var_epi16(x, low, y));
    if (n > 16) _mm512_storeu_si512(to + 2 * d + 32, _mm512_permutex2var_epi16(x, high, y));
  }
}

// Values s to s + count in pairs along the keys: row i of the operand is element i, step l the keys
// 2 l and 2 l + 1. The buffer's rows hold whole vectors.
inline Left<bf16> value_pairs(const AttentionArgs& a, const Span& span, int64_t g, int64_t s,
                              int64_t count, bf16* buffer) {
  int64_t row = (a.value_dim + 15) / 16 * 32;
  auto key = [&](int64_t k) { return reinterpret_cast<const bf16*>(key_run(a, span, g, k).v); };
  bool one_run = key_run(a, span, g, s).count >= count;
  const bf16* first = key(s);
  for (int64_t k = 0; k < count; k += 2) {
    const bf16* x = one_run ? first + k * a.v_stride[2] : key(s + k);
    const bf16* y = k + 1 == count ? nullptr : one_run ? x + a.v_stride[2] : key(s + k + 1);
    interleave(x, y, a.value_dim, buffer + k / 2 * row);
  }
  return {buffer, 2, row};
}

}  // namespace
HONED_END_LEVEL
#endif
