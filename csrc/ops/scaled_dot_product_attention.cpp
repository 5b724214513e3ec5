// scaled_dot_product_attention: checks, the choice of path, and the sizes both sides agree on.
#include "ops/scaled_dot_product_attention.h"

#include <algorithm>

#include "core/arena.h"
#include "core/check.h"
#include "cpu/dispatch.h"
#include "ops/_product_rate.h"

namespace honed {

namespace {

constexpr char kName[] = "scaled_dot_product_attention";

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

void check_type(const char* what, DType got, bool fits) {
  HONED_CHECK_TYPE(fits, kName, ": ", what, " is ", name_of(got),
                   ", expected query's type, or float16 or bfloat16 beside a float32 query");
}

void check_operands(const TensorView& out, const TensorView& q, const TensorView& k,
                    const TensorView& v) {
  for (const TensorView* t : {&out, &q, &k, &v})
    HONED_CHECK(t->ndim == 4, kName, ": a tensor has shape ", shape_of(*t),
                ", expected 4 dimensions");
  HONED_CHECK_TYPE(is_float(q.dtype), kName, ": query is ", name_of(q.dtype),
                   ", expected float32, float16 or bfloat16");
  check_type("key", k.dtype,
             k.dtype == q.dtype ||
                 (q.dtype == DType::f32 && (k.dtype == DType::f16 || k.dtype == DType::bf16)));
  check_type("value", v.dtype, v.dtype == k.dtype);
  HONED_CHECK(k.size(0) == q.size(0) && k.size(3) == q.size(3) && v.size(0) == k.size(0) &&
                  v.size(1) == k.size(1) && v.size(2) == k.size(2),
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

// Right-aligned broadcast of mask to (B,H,T,S).
void set_mask(AttentionArgs& args, const TensorView& mask) {
  HONED_CHECK_TYPE(is_float(mask.dtype) || mask.dtype == DType::boolean, kName, ": mask is ",
                   name_of(mask.dtype), ", expected bool, float32, float16 or bfloat16");
  const int64_t full[4] = {args.batch, args.heads, args.q_len, args.kv_len};
  bool fits = mask.ndim <= 4;
  for (int d = 1; fits && d <= mask.ndim; ++d)
    fits = mask.size(-d) == full[4 - d] || mask.size(-d) == 1;
  HONED_CHECK(fits, kName, ": mask has shape ", shape_of(mask), ", expected it to broadcast to [",
              full[0], ", ", full[1], ", ", full[2], ", ", full[3], "]");
  args.mask = {mask.data, mask.dtype, {}};
  for (int d = 1; d <= 4; ++d)
    args.mask.stride[4 - d] = d <= mask.ndim && mask.size(-d) != 1 ? mask.stride(-d) : 0;
}

}  // namespace

bool attention_splits(const AttentionArgs& args) {
  return args.q_len <= kDecodeQueries || args.q_len * args.heads <= kDecodeRows * args.kv_heads;
}

int64_t attention_block_rows(const AttentionArgs& args) {
  int64_t size = std::max(args.head_dim, args.value_dim);
  return size <= 128 ? 64 : size <= 256 ? 32 : 16;
}

int64_t attention_chunks(const AttentionArgs& args) {
  return std::max<int64_t>(1, ceil_div(args.kv_len, kDecodeKeys));
}

int64_t attention_items(const AttentionArgs& args) {
  if (args.batch * args.heads * args.q_len == 0) return 0;
  int64_t groups = args.batch * args.kv_heads, rows = args.heads / args.kv_heads * args.q_len;
  return groups * (attention_splits(args) ? attention_chunks(args)
                                          : ceil_div(rows, attention_block_rows(args)));
}

int64_t attention_combine_items(const AttentionArgs& args) {
  bool combines = attention_splits(args) && attention_chunks(args) > 1;
  return combines ? args.batch * args.heads * args.q_len : 0;
}

int64_t attention_partial_floats(const AttentionArgs& args) {
  return attention_combine_items(args) * attention_chunks(args) * (args.value_dim + 2);
}

void scaled_dot_product_attention(const TensorView& out, const TensorView& q, const TensorView& k,
                                  const TensorView& v, const TensorView* mask,
                                  const TensorView* key_mask, float scale, float softcap,
                                  bool causal, int64_t causal_offset) {
  check_operands(out, q, k, v);
  AttentionArgs args{};
  args.q = q.data, args.k = k.data, args.v = v.data, args.out = out.data;
  for (int d = 0; d < 3; ++d) {
    args.q_stride[d] = q.strides[d], args.k_stride[d] = k.strides[d];
    args.v_stride[d] = v.strides[d], args.out_stride[d] = out.strides[d];
  }
  args.batch = q.size(0), args.heads = q.size(1), args.kv_heads = k.size(1);
  args.q_len = q.size(2), args.kv_len = k.size(2), args.head_dim = q.size(3),
  args.value_dim = v.size(3);
  args.dtype = q.dtype, args.kv_dtype = k.dtype;
  args.dots = q.dtype == DType::bf16 && k.dtype == DType::bf16 &&
              way_of_bf16(attention_block_rows(args)) != Way::plain;
  args.scale = scale, args.softcap = softcap;
  args.window_left = kNoWindow, args.window_right = causal ? 0 : kNoWindow;
  args.offset = causal_offset;
  if (mask) set_mask(args, *mask);
  if (key_mask) {
    HONED_CHECK_TYPE(key_mask->dtype == DType::boolean || key_mask->dtype == DType::u8, kName,
                     ": key_mask is ", name_of(key_mask->dtype), ", expected bool");
    HONED_CHECK(key_mask->ndim == 2 && key_mask->size(0) == args.batch &&
                    key_mask->size(1) == args.kv_len &&
                    (key_mask->stride(1) == 1 || args.kv_len <= 1),
                kName, ": key_mask has shape ", shape_of(*key_mask), ", expected [", args.batch,
                ", ", args.kv_len, "] with unit stride");
    args.key_mask = static_cast<const uint8_t*>(key_mask->data);
    args.key_mask_stride = key_mask->stride(0);
  }
  int64_t items = attention_items(args);
  if (items == 0 || args.value_dim == 0) return;
  const cpu::KernelTable& table = cpu::kernels();
  if (!attention_splits(args)) {
    int64_t each = attention_block_rows(args) * args.kv_len * (args.head_dim + args.value_dim) / 8;
    cpu::run(table.scaled_dot_product_attention, args, items, cpu::grain_for(each));
    return;
  }
  Scratch partial(attention_partial_floats(args) * int64_t(sizeof(float)));
  args.partial = partial.as<float>();
  int64_t keys = std::min(args.kv_len, kDecodeKeys);
  cpu::run(table.attention_decode, args, items,
           cpu::grain_for(keys * (args.head_dim + args.value_dim) / 4));
  cpu::run(table.attention_combine, args, attention_combine_items(args),
           cpu::grain_for(attention_chunks(args) * args.value_dim / 4));
}

}  // namespace honed
