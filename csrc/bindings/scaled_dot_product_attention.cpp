// honed._core.scaled_dot_product_attention
#include "bindings/function.h"
#include "core/check.h"
#include "ops/_attention_call.h"

namespace honed::bindings {

namespace {

// Leading dimensions added.
TensorView with_dims(TensorView view, int dims) {
  for (; view.ndim < dims; ++view.ndim)
    for (int d = view.ndim; d >= 0; --d) {
      view.shape[d] = d ? view.shape[d - 1] : 1;
      view.strides[d] = d ? view.strides[d - 1] : 0;
    }
  return view;
}

TensorView heads(const char* what, const TensorView& tensor) {
  HONED_CHECK(tensor.ndim >= 2 && tensor.ndim <= 4, "scaled_dot_product_attention: ", what,
              " has shape ", shape_of(tensor), ", expected 2 to 4 dimensions");
  return with_dims(tensor, 4);
}

// A copy only where the last dimension has no unit stride.
class UnitStride {
 public:
  explicit UnitStride(const TensorView& tensor) : view_(tensor) {
    if (tensor.size(-1) > 1 && tensor.stride(-1) != 1) view_ = *dense_.emplace(tensor).view();
  }
  const TensorView& view() const { return view_; }

 private:
  TensorView view_;
  std::optional<Dense> dense_;
};

std::optional<TensorView> key_scale(const TensorView* tensor) {
  if (!tensor) return std::nullopt;
  return with_dims(*tensor, 3);
}

auto forward(Results& results, const TensorView& query, const TensorView& key,
             const TensorView& value, const TensorView* attn_mask, const TensorView* bias,
             const TensorView* key_mask, const TensorView* alibi_slopes, const TensorView* sinks,
             const TensorView* cu_seqlens_q, const TensorView* cu_seqlens_k,
             const TensorView* seqused_k, const TensorView* block_table, const TensorView* k_scale,
             const TensorView* v_scale, double scale, double softcap, double dropout_p,
             int64_t window_left, int64_t window_right, int64_t offset, bool offset_from_end,
             bool return_lse, int64_t seed) {
  TensorView q = heads("query", query), k = heads("key", key), v = heads("value", value);
  // In memory (B,T,H,Dv), so that joining the heads afterwards moves nothing.
  int64_t dims[4] = {q.size(0), q.size(2), q.size(1), v.size(3)};
  TensorView out = results.make(dims, query.dtype), lse;
  std::swap(out.shape[1], out.shape[2]);
  std::swap(out.strides[1], out.strides[2]);
  if (return_lse)
    lse = results.make({q.shape, 3}, query.dtype == DType::f64 ? DType::f64 : DType::f32);
  else
    results.skip();
  return [=] {
    UnitStride q_rows(q), k_rows(k), v_rows(v);
    std::optional<Dense> seen;
    if (key_mask) seen.emplace(*key_mask);
    auto k_scales = key_scale(k_scale), v_scales = key_scale(v_scale);
    AttentionInputs in;
    in.out = out, in.q = q_rows.view(), in.k = k_rows.view(), in.v = v_rows.view();
    in.lse = return_lse ? &lse : nullptr;
    in.mask = attn_mask, in.bias = bias, in.key_mask = seen ? seen->view() : nullptr;
    in.alibi = alibi_slopes, in.sinks = sinks;
    in.q_starts = cu_seqlens_q, in.k_starts = cu_seqlens_k, in.k_lens = seqused_k;
    in.block_table = block_table;
    in.k_scale = k_scales ? &*k_scales : nullptr, in.v_scale = v_scales ? &*v_scales : nullptr;
    in.scale = scale, in.softcap = softcap, in.dropout = dropout_p, in.seed = uint64_t(seed);
    in.window_left = window_left, in.window_right = window_right;
    in.offset = offset, in.offset_from_end = offset_from_end;
    scaled_dot_product_attention(in);
  };
}

}  // namespace

void bind_attention_backward(py::module_& m);

void bind_scaled_dot_product_attention(py::module_& m) {
  define<forward>(m,
                  "scaled_dot_product_attention(Tensor query, Tensor key, Tensor value, "
                  "Tensor? attn_mask, Tensor? bias, Tensor? key_mask, Tensor? alibi_slopes, "
                  "Tensor? sinks, Tensor? cu_seqlens_q, Tensor? cu_seqlens_k, Tensor? seqused_k, "
                  "Tensor? block_table, Tensor? key_scale, Tensor? value_scale, float scale, "
                  "float softcap, float dropout_p, int window_left, int window_right, int offset, "
                  "bool offset_from_end, bool return_lse, int seed) -> (Tensor, Tensor)");
  bind_attention_backward(m);
}

}  // namespace honed::bindings
