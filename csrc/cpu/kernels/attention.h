// What the attention kernels share: where a sequence's queries and keys lie, which keys a query
// sees, rows in and out, the exponential of a softmax. attention_scores.h: blocks of scores.
#pragma once
#include "cpu/simd/math.h"
#include "cpu/simd/random.h"
#include "cpu/visit.h"
#include "ops/scaled_dot_product_attention.h"

HONED_BEGIN_LEVEL
namespace {

// The largest score before any is seen. Not -infinity: a hidden key's weight is then 0 without a
// test.
[[maybe_unused]] constexpr float kLowest = -3.402823466e38f;
[[maybe_unused]] constexpr float kMinusInf = -__builtin_inff();

[[maybe_unused]] constexpr float kLog2e = 1.44269504f;

HONED_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
HONED_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// The queries and the keys of sequence b.
struct Span {
  int64_t b;
  int64_t q_batch, q_first, q_len;  // index along the batch, first row along the time
  int64_t k_batch, k_first, k_len;  // paged keys: see key_run
  int64_t offset;                   // query t stands at t + offset among the keys
};

HONED_INLINE Span span_of(const AttentionArgs& a, int64_t b) {
  Span s{b, b, 0, a.q_len, b, 0, a.kv_len, a.offset};
  if (a.q_starts) {
    s.q_batch = 0, s.q_first = a.q_starts[b];
    s.q_len = a.q_starts[b + 1] - s.q_first;
  }
  if (a.k_starts) {
    s.k_batch = 0, s.k_first = a.k_starts[b];
    s.k_len = a.k_starts[b + 1] - s.k_first;
  }
  if (a.k_lens) s.k_len = a.k_lens[b];
  if (a.offset_from_end) s.offset = s.k_len - s.q_len;
  return s;
}

// The keys that query t may see, masks aside: from first_key to before end_key, none if these cross.
HONED_INLINE int64_t first_key(const AttentionArgs& a, const Span& s, int64_t t) {
  return larger(0, t + s.offset - a.window_left);
}
HONED_INLINE int64_t end_key(const AttentionArgs& a, const Span& s, int64_t t) {
  return larger(0, smaller(s.k_len, t + s.offset + a.window_right + 1));
}

// Number of a query row among all: of lse, and of the dropout's random row.
HONED_INLINE int64_t row_number(const AttentionArgs& a, const Span& s, int64_t h, int64_t t) {
  return a.q_starts ? h * a.q_starts[a.batch] + s.q_first + t : (s.b * a.heads + h) * a.q_len + t;
}
HONED_INLINE uint64_t dropout_key(const AttentionArgs& a, const Span& s, int64_t h, int64_t t) {
  return random_row_key(a.seed, uint64_t(row_number(a, s, h, t)));
}

HONED_INLINE int64_t bytes_of(DType dtype) {
  return dtype == DType::f64 ? 8 : dtype == DType::f32 ? 4 : dtype == DType::i8 ? 1 : 2;
}

// Keys of one head that lie one after the other: in the same page, where there are pages.
struct KeyRun {
  const char *k, *v;               // rows k_stride[2] and v_stride[2] elements apart
  const float *k_scale, *v_scale;  // i8: k_scale_stride[2], v_scale_stride[2] apart; else nullptr
  int64_t count;                   // to the page's or the sequence's end
};

// The run of key head g that begins with key s.
HONED_INLINE KeyRun key_run(const AttentionArgs& a, const Span& span, int64_t g, int64_t s) {
  int64_t batch = span.k_batch, time = span.k_first + s, count = span.k_len - s;
  if (a.block_table) {
    batch = a.block_table[span.b * a.block_table_stride + s / a.page];
    time = s % a.page;
    count = smaller(count, a.page - time);
  }
  int64_t bytes = bytes_of(a.kv_dtype);
  auto at = [&](const int64_t* stride) {
    return batch * stride[0] + g * stride[1] + time * stride[2];
  };
  bool i8 = a.kv_dtype == DType::i8;
  return {static_cast<const char*>(a.k) + at(a.k_stride) * bytes,
          static_cast<const char*>(a.v) + at(a.v_stride) * bytes,
          i8 ? a.k_scale + at(a.k_scale_stride) : nullptr,
          i8 ? a.v_scale + at(a.v_scale_stride) : nullptr, count};
}

// i8 to f32
typedef int8_t bytes_of_lanes __attribute__((vector_size(kLanes)));
typedef float floats_of_lanes __attribute__((vector_size(kLanes * 4)));
HONED_INLINE vf load(const int8_t* p, int n) {
  bytes_of_lanes bytes{};
  __builtin_memcpy(&bytes, p, size_t(n));
  return (vf) __builtin_convertvector(bytes, floats_of_lanes);
}

// Rows of f32, `stride` apart.
struct FloatRows {
  const float* data;
  int64_t stride;
};

enum class Part { keys, values };

// The keys or values s to s + count of head g as f32: where they lie, or converted into buffer,
// which has room for count rows of head_dim or value_dim.
HONED_INLINE FloatRows float_rows(const AttentionArgs& a, const Span& span, int64_t g, int64_t s,
                                  int64_t count, Part part, float* buffer) {
  bool keys = part == Part::keys;
  int64_t cols = keys ? a.head_dim : a.value_dim, stride = keys ? a.k_stride[2] : a.v_stride[2];
  for (int64_t done = 0; done < count;) {
    KeyRun run = key_run(a, span, g, s + done);
    const char* from = keys ? run.k : run.v;
    int64_t rows = smaller(run.count, count - done);
    if (a.kv_dtype == DType::f32 && rows == count)
      return {reinterpret_cast<const float*>(from), stride};
    float* to = buffer + done * cols;
    if (a.kv_dtype == DType::i8) {
      const auto* row = reinterpret_cast<const int8_t*>(from);
      const float* scale = keys ? run.k_scale : run.v_scale;
      int64_t scale_stride = keys ? a.k_scale_stride[2] : a.v_scale_stride[2];
      for (int64_t r = 0; r < rows; ++r, row += stride, to += cols)
        for_lanes(cols, [&](int64_t i, int n) {
          store(to + i, load(row + i, n) * set1(scale[r * scale_stride]), n);
        });
    } else {
      visit_float(a.kv_dtype, [&](auto tag) {
        const auto* row = reinterpret_cast<const typename decltype(tag)::type*>(from);
        for (int64_t r = 0; r < rows; ++r, row += stride, to += cols)
          for_lanes(cols, [&](int64_t i, int n) { store(to + i, load(row + i, n), n); });
      });
    }
    done += rows;
  }
  return {buffer, cols};
}

// Of query t of head h: to[d] = q[d] * scale, zeros up to a whole vector.
[[maybe_unused, gnu::noinline]] void load_query(const AttentionArgs& a, const Span& s, int64_t h,
                                                int64_t t, vf scale, float* to) {
  int64_t at = s.q_batch * a.q_stride[0] + h * a.q_stride[1] + (s.q_first + t) * a.q_stride[2];
  visit_float(a.dtype, [&](auto tag) {
    const auto* q = static_cast<const typename decltype(tag)::type*>(a.q) + at;
    for_lanes(a.head_dim, [&](int64_t i, int n) { store(to + i, load(q + i, n) * scale); });
  });
}

HONED_INLINE void store_result(const AttentionArgs& a, const Span& s, int64_t h, int64_t t,
                               const float* from) {
  int64_t at =
      s.q_batch * a.out_stride[0] + h * a.out_stride[1] + (s.q_first + t) * a.out_stride[2];
  visit_float(a.dtype, [&](auto tag) {
    auto* out = static_cast<typename decltype(tag)::type*>(a.out) + at;
    for_lanes(a.value_dim, [&](int64_t i, int n) { store(out + i, load(from + i, n), n); });
  });
}

// 2^x for x <= 0: within 3 ulp down to 2^-126; -infinity gives 0, NaN NaN.
HONED_INLINE vf exp2_of_negative(vf x) {
#if defined(__AVX512F__)
  vf r = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);  // x - floor(x)
  vf p = set1(1.86713028e-3f);  // minimax of 2^r on [0, 1], exact at 0
  p = fmadd(p, r, set1(9.01702978e-3f));
  p = fmadd(p, r, set1(5.57999127e-2f));
  p = fmadd(p, r, set1(0.240164444f));
  p = fmadd(p, r, set1(0.693151295f));
  return _mm512_scalef_ps(fmadd(p, r, set1(1.0f)), x);  // scalef takes the floor
#else
  const vf low = set1(-126.0f);
  vf clamped = vmax(low, x), n = round_even(clamped), r = clamped - n;
  vf p = set1(1.32647273e-3f);  // minimax of 2^r on [-1/2, 1/2], exact at 0
  p = fmadd(p, r, set1(9.67151299e-3f));
  p = fmadd(p, r, set1(5.55073358e-2f));
  p = fmadd(p, r, set1(0.240222424f));
  p = fmadd(p, r, set1(0.693147004f));
  return select_less(x, low, zero(), fmadd(p, r, set1(1.0f)) * exp2_integral(n));
#endif
}

// e^x for x <= 0
HONED_INLINE vf weight_of(vf x) { return exp2_of_negative(x * set1(kLog2e)); }
HONED_INLINE float weight_of(float x) {
  float lanes[kLanes];
  store(lanes, weight_of(set1(x)));
  return lanes[0];
}

// One more key, of score sink and without a value, to weights relative to their largest score, whose
// sum is total. Returns what the sum of weights times values is to be multiplied with. exp(x) is e^x
// for x <= 0; top is finite where no key was seen.
template <class X, class F>
HONED_INLINE X add_sink(X sink, X* top, X* total, F&& exp) {
  if (sink <= *top) {
    *total += exp(sink - *top);
    return 1;
  }
  X fade = exp(*top - sink);
  *total = *total * fade + 1;
  *top = sink;
  return fade;
}

// attention_block_rows, inside the level.
HONED_INLINE int64_t block_rows(const AttentionArgs& a) {
  int64_t size = a.head_dim > a.value_dim ? a.head_dim : a.value_dim;
  return size <= 128 ? 64 : size <= 256 ? 32 : 16;
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

}  // namespace
HONED_END_LEVEL
