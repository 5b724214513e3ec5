// honed._core.attention_backward
#include "ops/_attention_backward.h"

#include <algorithm>
#include <cstring>

#include "bindings/function.h"
#include "bindings/unit_stride.h"
#include "core/check.h"
#include "ops/_attention_call.h"

namespace honed::bindings {

namespace {

constexpr char kName[] = "attention_backward";

// A gradient of (B,H,T,D), lying in memory as the operand does: by heads or by times.
TensorView make_heads(Results& results, bool wanted, const TensorView& like, int64_t* stride) {
  if (!wanted) {
    results.skip();
    return {};
  }
  const bool by_time = like.stride(1) < like.stride(2);
  const int64_t shape[4] = {like.size(0), like.size(by_time ? 2 : 1), like.size(by_time ? 1 : 2),
                            like.size(3)};
  TensorView made = results.make(shape, like.dtype);
  stride[0] = made.stride(0), stride[1] = made.stride(by_time ? 2 : 1);
  stride[2] = made.stride(by_time ? 1 : 2);
  return made;
}

auto backward(Results& results, const TensorView& dout, const TensorView* dlse,
              const TensorView& out, const TensorView& lse, const TensorView& query,
              const TensorView& key, const TensorView& value, const TensorView* attn_mask,
              const TensorView* bias, const TensorView* key_mask, const TensorView* alibi_slopes,
              const TensorView* sinks, const TensorView* cu_seqlens_q,
              const TensorView* cu_seqlens_k, const TensorView* seqused_k, double scale,
              double softcap, double dropout_p, int64_t window_left, int64_t window_right,
              int64_t offset, bool offset_from_end, int64_t seed, bool need_query, bool need_key,
              bool need_value, bool need_bias, bool need_sinks) {
  for (const TensorView* t : {&dout, &out, &query, &key, &value})
    HONED_CHECK(t->ndim == 4, kName, ": a tensor has shape ", shape_of(*t),
                ", expected 4 dimensions");
  HONED_CHECK(same_shape(dout, out) && dout.dtype == out.dtype, kName, ": dout has shape ",
              shape_of(dout), " and out ", shape_of(out), ", expected equal shapes and types");
  HONED_CHECK(!dlse || (same_shape(*dlse, lse) && dlse->dtype == lse.dtype), kName,
              ": dlse is not like lse");
  AttentionBackwardArgs args{};
  TensorView dq = make_heads(results, need_query, query, args.dq_stride);
  TensorView dk = make_heads(results, need_key, key, args.dk_stride);
  TensorView dv = make_heads(results, need_value, value, args.dv_stride);
  const DType sums = query.dtype == DType::f64 ? DType::f64 : DType::f32;
  TensorView dbias, dsinks;
  if (need_bias && bias)
    dbias = results.make({bias->shape, size_t(bias->ndim)}, sums);
  else
    results.skip();
  if (need_sinks && sinks)
    dsinks = results.make({sinks->shape, 1}, sums);
  else
    results.skip();
  args.dq = dq.data, args.dk = dk.data, args.dv = dv.data;
  args.dbias = dbias.data, args.dsinks = dsinks.data;
  for (int d = 1; dbias.data && d <= std::min(dbias.ndim, 4); ++d)
    args.dbias_stride[4 - d] = dbias.size(-d) == 1 ? 0 : dbias.stride(-d);
  return [=]() mutable {
    UnitStride q(query), k(key), v(value), result(out), gradient(dout);
    Dense seen(key_mask), dense_dlse(dlse);
    AttentionInputs in{result.view(), q.view(), k.view(), v.view()};
    in.mask = attn_mask, in.bias = bias, in.key_mask = seen.view();
    in.alibi = alibi_slopes, in.sinks = sinks;
    in.q_starts = cu_seqlens_q, in.k_starts = cu_seqlens_k, in.k_lens = seqused_k;
    in.lse = &lse;
    in.scale = scale, in.softcap = softcap, in.dropout = dropout_p, in.seed = uint64_t(seed);
    in.window_left = window_left, in.window_right = window_right;
    in.offset = offset, in.offset_from_end = offset_from_end;
    AttentionCall call(in);
    args.forward = call.args;
    args.dout = gradient.view().data;
    std::copy(gradient.view().strides, gradient.view().strides + 3, args.dout_stride);
    args.dlse = dense_dlse.view() ? dense_dlse.view()->data : nullptr;
    const bool sparse = sums == DType::f64 || seqused_k || query.numel() == 0;
    for (const TensorView* zeroed : {&dk, &dv, &dbias, &dsinks})  // what no kernel may reach
      if (zeroed->data && (sparse || zeroed == &dbias))
        std::memset(zeroed->data, 0, size_t(zeroed->numel() * size_of(zeroed->dtype)));
    attention_backward(args);
  };
}

}  // namespace

void bind_attention_backward(py::module_& m) {
  define<backward>(
      m,
      "attention_backward(Tensor dout, Tensor? dlse, Tensor out, Tensor lse, Tensor query, "
      "Tensor key, Tensor value, Tensor? attn_mask, Tensor? bias, Tensor? key_mask, "
      "Tensor? alibi_slopes, Tensor? sinks, Tensor? cu_seqlens_q, Tensor? cu_seqlens_k, "
      "Tensor? seqused_k, float scale, float softcap, float dropout_p, int window_left, "
      "int window_right, int offset, bool offset_from_end, int seed, bool need_query, "
      "bool need_key, bool need_value, bool need_bias, bool need_sinks) "
      "-> (Tensor, Tensor, Tensor, Tensor, Tensor)");
}

}  // namespace honed::bindings
