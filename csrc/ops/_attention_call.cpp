// What an attention call was given, checked and put the way the kernels read it.
#include "ops/_attention_call.h"

#include <algorithm>

#include "core/check.h"

namespace honed {

namespace {

constexpr char kName[] = "scaled_dot_product_attention";

void check_type(const char* what, DType got, bool fits) {
  HONED_CHECK_TYPE(fits, kName, ": ", what, " is ", name_of(got),
                   ", expected query's type, or float16, bfloat16 or int8 beside a float32 query");
}

void check_operands(const AttentionInputs& in) {
  const TensorView &q = in.q, &k = in.k, &v = in.v, &out = in.out;
  for (const TensorView* t : {&out, &q, &k, &v})
    HONED_CHECK(t->ndim == 4, kName, ": a tensor has shape ", shape_of(*t),
                ", expected 4 dimensions");
  HONED_CHECK_TYPE(is_float(q.dtype) || q.dtype == DType::f64, kName, ": query is ",
                   name_of(q.dtype), ", expected float64, float32, float16 or bfloat16");
  check_type("key", k.dtype,
             k.dtype == q.dtype ||
                 (q.dtype == DType::f32 &&
                  (k.dtype == DType::f16 || k.dtype == DType::bf16 || k.dtype == DType::i8)));
  check_type("value", v.dtype, v.dtype == k.dtype);
  HONED_CHECK(k.size(3) == q.size(3) && v.size(0) == k.size(0) && v.size(1) == k.size(1) &&
                  v.size(2) == k.size(2),
              kName, ": query, key and value have shapes ", shape_of(q), ", ", shape_of(k), " and ",
              shape_of(v), ", expected (B,H,T,D), (B,Hkv,S,D) and (B,Hkv,S,Dv)");
  HONED_CHECK(q.size(1) == k.size(1) || (k.size(1) > 0 && q.size(1) % k.size(1) == 0), kName, ": ",
              q.size(1), " query heads over ", k.size(1), " key heads, expected a multiple");
  HONED_CHECK(q.size(3) <= kMaxHeadDim && v.size(3) <= kMaxHeadDim, kName, ": head sizes ",
              q.size(3), " and ", v.size(3), ", expected at most ", kMaxHeadDim);
  HONED_CHECK(out.dtype == q.dtype && out.size(0) == q.size(0) && out.size(1) == q.size(1) &&
                  out.size(2) == q.size(2) && out.size(3) == v.size(3),
              kName, ": the result has shape ", shape_of(out), ", expected (B,H,T,Dv)");
  for (const TensorView* t : {&out, &q, &k, &v})
    HONED_CHECK(t->stride(3) == 1 || t->size(3) <= 1, kName, ": the last dimension has stride ",
                t->stride(3), ", expected 1");
}

// Whole numbers of any layout, by rows.
template <class T>
std::vector<T> integers(const char* what, const TensorView& t) {
  HONED_CHECK_TYPE(t.dtype == DType::i32 || t.dtype == DType::i64, kName, ": ", what, " is ",
                   name_of(t.dtype), ", expected int32 or int64");
  int64_t cols = t.ndim ? t.size(-1) : 1, step = t.ndim ? t.stride(-1) : 0;
  int64_t rows = t.ndim == 2 ? t.size(0) : 1, row_step = t.ndim == 2 ? t.stride(0) : 0;
  std::vector<T> all;
  all.reserve(size_t(rows * cols));
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) {
      int64_t at = r * row_step + c * step;
      int64_t value = t.dtype == DType::i64 ? t.as<int64_t>()[at] : t.as<int32_t>()[at];
      HONED_CHECK(value >= -1 && value <= INT32_MAX, kName, ": ", what, " holds ", value,
                  ", expected 0 to ", INT32_MAX);
      all.push_back(T(value));
    }
  return all;
}

// Sequence b is rows starts[b] to starts[b + 1] of `total`; the longest is returned.
int64_t check_starts(const char* what, const std::vector<int64_t>& starts, const TensorView& view,
                     const TensorView& rows) {
  HONED_CHECK(view.ndim == 1 && !starts.empty(), kName, ": ", what, " has shape ", shape_of(view),
              ", expected (sequences + 1)");
  HONED_CHECK(rows.size(0) == 1, kName, ": ", what,
              " is given and the tensor it divides has shape ", shape_of(rows),
              ", expected [1, heads, total, head size]");
  int64_t longest = 0;
  for (size_t b = 0; b + 1 < starts.size(); ++b) {
    HONED_CHECK(starts[b + 1] >= starts[b], kName, ": ", what, " goes from ", starts[b], " to ",
                starts[b + 1], " at ", b, ", expected that it never falls");
    longest = std::max(longest, starts[b + 1] - starts[b]);
  }
  HONED_CHECK(starts.front() == 0 && starts.back() == rows.size(2), kName, ": ", what,
              " goes from ", starts.front(), " to ", starts.back(), ", expected 0 to ",
              rows.size(2));
  return longest;
}

double number(const TensorView& t, int64_t offset) {
  return t.dtype == DType::f64 ? t.as<double>()[offset] : double(element(t, offset));
}

// (H), or (B,H) where `batched`, as (B or 1, H).
template <class T>
std::vector<T> per_head(const char* what, const TensorView& t, const AttentionArgs& a,
                        bool batched) {
  HONED_CHECK_TYPE(is_float(t.dtype) || t.dtype == DType::f64, kName, ": ", what, " is ",
                   name_of(t.dtype), ", expected a floating type");
  bool plain = t.ndim == 1 && t.size(0) == a.heads;
  HONED_CHECK(plain || (batched && t.ndim == 2 && t.size(0) == a.batch && t.size(1) == a.heads),
              kName, ": ", what, " has shape ", shape_of(t), ", expected [", a.heads, "]",
              batched ? " or (batch, heads)" : "");
  std::vector<T> all;
  for (int64_t b = 0; b < (plain ? 1 : a.batch); ++b)
    for (int64_t h = 0; h < a.heads; ++h)
      all.push_back(T(number(t, (plain ? 0 : b * t.stride(0)) + h * t.stride(-1))));
  return all;
}

// Right-aligned broadcast to (B,H,T,S).
AttentionMask broadcast(const char* what, const TensorView& t, const AttentionArgs& a, int64_t keys,
                        bool booleans) {
  HONED_CHECK_TYPE(is_float(t.dtype) || (t.dtype == DType::f64 && a.dtype == DType::f64) ||
                       (booleans && t.dtype == DType::boolean),
                   kName, ": ", what, " is ", name_of(t.dtype), ", expected ",
                   booleans ? "bool or " : "", "float32, float16, bfloat16, or query's float64");
  const int64_t full[4] = {a.batch, a.heads, a.q_len, keys};
  bool fits = t.ndim <= 4;
  for (int d = 1; fits && d <= t.ndim; ++d) fits = t.size(-d) == full[4 - d] || t.size(-d) == 1;
  HONED_CHECK(fits, kName, ": ", what, " has shape ", shape_of(t),
              ", expected it to broadcast to [", full[0], ", ", full[1], ", ", full[2], ", ",
              full[3], "]");
  AttentionMask mask{t.data, t.dtype, {}};
  for (int d = 1; d <= 4; ++d)
    mask.stride[4 - d] = d <= t.ndim && t.size(-d) != 1 ? t.stride(-d) : 0;
  return mask;
}

const uint8_t* key_mask(const TensorView& t, const AttentionArgs& a, int64_t keys) {
  HONED_CHECK_TYPE(t.dtype == DType::boolean || t.dtype == DType::u8, kName, ": key_mask is ",
                   name_of(t.dtype), ", expected bool");
  HONED_CHECK(
      t.ndim == 2 && t.size(0) == a.batch && t.size(1) == keys && (t.stride(1) == 1 || keys <= 1),
      kName, ": key_mask has shape ", shape_of(t), ", expected [", a.batch, ", ", keys,
      "] with unit stride");
  return t.as<uint8_t>();
}

const float* key_scale(const char* what, const TensorView* t, const TensorView& rows,
                       int64_t* stride) {
  bool integral = rows.dtype == DType::i8;
  HONED_CHECK(!t == !integral, kName, ": ", what, integral ? " is missing" : " is given",
              " and key and value are ", name_of(rows.dtype),
              ", expected scales with int8 and only there");
  if (!t) return nullptr;
  HONED_CHECK_TYPE(t->dtype == DType::f32, kName, ": ", what, " is ", name_of(t->dtype),
                   ", expected float32");
  HONED_CHECK(t->ndim == 3 && t->size(0) == rows.size(0) && t->size(1) == rows.size(1) &&
                  t->size(2) == rows.size(2),
              kName, ": ", what, " has shape ", shape_of(*t), ", expected [", rows.size(0), ", ",
              rows.size(1), ", ", rows.size(2), "]");
  std::copy(t->strides, t->strides + 3, stride);
  return t->as<float>();
}

}  // namespace

AttentionCall::AttentionCall(const AttentionInputs& in) {
  check_operands(in);
  AttentionArgs& a = args;
  const TensorView &q = in.q, &k = in.k, &v = in.v;
  a.q = q.data, a.k = k.data, a.v = v.data, a.out = in.out.data;
  for (int d = 0; d < 3; ++d) {
    a.q_stride[d] = q.strides[d], a.k_stride[d] = k.strides[d];
    a.v_stride[d] = v.strides[d], a.out_stride[d] = in.out.strides[d];
  }
  a.batch = q.size(0), a.heads = q.size(1), a.kv_heads = k.size(1);
  a.q_len = q.size(2), a.kv_len = k.size(2), a.head_dim = q.size(3), a.value_dim = v.size(3);
  a.dtype = q.dtype, a.kv_dtype = k.dtype;

  if (in.q_starts) {
    q_starts_ = integers<int64_t>("cu_seqlens_q", *in.q_starts);
    a.q_len = check_starts("cu_seqlens_q", q_starts_, *in.q_starts, q);
    a.batch = int64_t(q_starts_.size()) - 1;
    a.q_starts = q_starts_.data();
  }
  int64_t key_batch = k.size(0);
  if (in.k_starts) {
    HONED_CHECK(!in.block_table, kName,
                ": got cu_seqlens_k and block_table, expected at most one of them");
    k_starts_ = integers<int64_t>("cu_seqlens_k", *in.k_starts);
    a.kv_len = check_starts("cu_seqlens_k", k_starts_, *in.k_starts, k);
    key_batch = int64_t(k_starts_.size()) - 1;
    a.k_starts = k_starts_.data();
  }
  if (in.block_table) {
    const TensorView& table = *in.block_table;
    HONED_CHECK(table.ndim == 2, kName, ": block_table has shape ", shape_of(table),
                ", expected (B, blocks)");
    blocks_ = integers<int32_t>("block_table", table);
    a.block_table = blocks_.data();
    a.block_table_stride = table.size(1);
    a.page = k.size(2);
    a.kv_len = a.page * table.size(1);
    key_batch = table.size(0);
  }
  HONED_CHECK(key_batch == a.batch, kName, ": ", key_batch, " sequences of keys and ", a.batch,
              " of queries, from shapes ", shape_of(q), " and ", shape_of(k), ", expected as many");
  int64_t keys = a.kv_len;  // as masks count them
  if (in.k_lens) {
    k_lens_ = integers<int64_t>("seqused_k", *in.k_lens);
    HONED_CHECK(in.k_lens->ndim == 1 && int64_t(k_lens_.size()) == a.batch, kName,
                ": seqused_k has shape ", shape_of(*in.k_lens), ", expected [", a.batch, "]");
    a.kv_len = 0;
    for (size_t b = 0; b < k_lens_.size(); ++b) {
      int64_t room = in.k_starts ? k_starts_[b + 1] - k_starts_[b] : keys;
      HONED_CHECK(k_lens_[b] >= 0 && k_lens_[b] <= room, kName, ": seqused_k is ", k_lens_[b],
                  " at ", b, ", expected 0 to ", room);
      a.kv_len = std::max(a.kv_len, k_lens_[b]);
    }
    a.k_lens = k_lens_.data();
  }
  for (int64_t b = 0; in.block_table && b < a.batch; ++b) {
    int64_t length = in.k_lens ? k_lens_[size_t(b)] : a.kv_len;
    for (int64_t s = 0; s * a.page < length; ++s) {
      int32_t page = blocks_[size_t(b * a.block_table_stride + s)];
      HONED_CHECK(page >= 0 && page < k.size(0), kName, ": block_table is ", page, " at (", b, ", ",
                  s, "), expected 0 to ", k.size(0) - 1);
    }
  }

  a.scale = float(in.scale), a.softcap = float(in.softcap);
  a.wide.scale = in.scale, a.wide.softcap = in.softcap;
  auto bound = [](int64_t width) { return width < 0 ? kNoWindow : std::min(width, kNoWindow); };
  a.window_left = bound(in.window_left), a.window_right = bound(in.window_right);
  HONED_CHECK(in.offset >= -kFurthest && in.offset <= kFurthest, kName, ": the offset is ",
              in.offset, ", expected at most ", kFurthest, " either way");
  a.offset = in.offset, a.offset_from_end = in.offset_from_end;
  if (in.offset_from_end && !in.q_starts && !in.k_starts && !in.k_lens) {
    a.offset = a.kv_len - a.q_len;
    a.offset_from_end = false;
  }
  if (in.mask) a.mask = broadcast("mask", *in.mask, a, keys, true);
  if (in.bias) a.bias = broadcast("bias", *in.bias, a, keys, false);
  if (in.key_mask) {
    a.key_mask = key_mask(*in.key_mask, a, keys);
    a.key_mask_stride = in.key_mask->stride(0);
  }
  a.k_scale = key_scale("key_scale", in.k_scale, k, a.k_scale_stride);
  a.v_scale = key_scale("value_scale", in.v_scale, v, a.v_scale_stride);
  bool wide = a.dtype == DType::f64;
  if (in.alibi) {
    if (wide)
      a.wide.alibi = (wide_alibi_ = per_head<double>("alibi_slopes", *in.alibi, a, true)).data();
    else
      a.alibi = (alibi_ = per_head<float>("alibi_slopes", *in.alibi, a, true)).data();
    a.alibi_stride[0] = in.alibi->ndim == 2 ? a.heads : 0;
    a.alibi_stride[1] = 1;
  }
  if (in.sinks) {
    if (wide)
      a.wide.sinks = (wide_sinks_ = per_head<double>("sinks", *in.sinks, a, false)).data();
    else
      a.sinks = (sinks_ = per_head<float>("sinks", *in.sinks, a, false)).data();
  }
  HONED_CHECK(in.dropout >= 0 && in.dropout <= 1, kName, ": dropout_p is ", in.dropout,
              ", expected 0 to 1");
  a.dropout = float(in.dropout), a.wide.dropout = in.dropout, a.seed = in.seed;
  if (in.lse) {
    const TensorView& lse = *in.lse;
    HONED_CHECK(lse.dtype == (wide ? DType::f64 : DType::f32) && lse.contiguous() &&
                    lse.ndim == 3 && lse.size(0) == q.size(0) && lse.size(1) == a.heads &&
                    lse.size(2) == q.size(2),
                kName, ": lse has shape ", shape_of(lse), ", expected (B,H,T)");
    a.lse = wide ? nullptr : lse.as<float>();
    a.wide.lse = wide ? lse.as<double>() : nullptr;
  }
}

}  // namespace honed
