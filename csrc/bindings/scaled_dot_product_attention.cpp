// honed._core.scaled_dot_product_attention, attention_at_once
#include <cmath>

#include "bindings/function.h"
#include "bindings/product.h"
#include "bindings/unit_stride.h"
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

// Tensors of torch's argument list that the kernels take as they are, without a gradient.
bool fits(const TensorView& q, const TensorView& k, const TensorView& v, bool shared_heads) {
  for (const TensorView* t : {&q, &k, &v})
    if (t->ndim != 4 || t->size(3) == 0 || t->size(3) > kMaxHeadDim ||
        (t->size(3) > 1 && t->stride(3) != 1))
      return false;
  bool heads =
      q.size(1) == k.size(1) || (shared_heads && k.size(1) > 0 && q.size(1) % k.size(1) == 0);
  return heads && q.size(0) == k.size(0) && q.size(3) == k.size(3) && k.size(0) == v.size(0) &&
         k.size(1) == v.size(1) && k.size(2) == v.size(2);
}

// query, key, value, attn_mask, is_causal, scale, enable_gqa
PyObject* attention_at_once(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 7) {
    PyErr_SetString(PyExc_TypeError, "attention_at_once: expected 7 arguments");
    return nullptr;
  }
  bool causal = args[4] == Py_True, shared_heads = args[6] == Py_True;
  if ((args[4] != Py_False && !causal) || (causal && args[3] != Py_None)) Py_RETURN_NOTIMPLEMENTED;
  return at_once<4>(args, [&](const Tensor* t) -> py::object {
    const TensorView &q = t[0].view(), &k = t[1].view(), &v = t[2].view();
    if (!fits(q, k, v, shared_heads)) return py::reinterpret_borrow<py::object>(Py_NotImplemented);
    AttentionInputs in;
    in.scale = args[5] == Py_None ? 1 / std::sqrt(double(q.size(3))) : PyFloat_AsDouble(args[5]);
    if (in.scale == -1 && PyErr_Occurred()) throw_python_error();
    bool by_time = q.size(2) > 1 && q.size(1) > 1;  // else both orders are the same
    int64_t dims[4] = {q.size(0), q.size(by_time ? 2 : 1), q.size(by_time ? 1 : 2), v.size(3)};
    NewTensor made = empty(t[0], dims, q.dtype);
    in.out = made.view, in.q = q, in.k = k, in.v = v;
    if (by_time) {
      std::swap(in.out.shape[1], in.out.shape[2]);
      std::swap(in.out.strides[1], in.out.strides[2]);
    }
    in.mask = args[3] == Py_None ? nullptr : &t[3].view();
    in.window_right = causal ? 0 : -1;
    {
      Unlocked unlocked;
      scaled_dot_product_attention(in);
    }
    if (!by_time) return made.object;
    PyObject* turned = PyObject_CallMethod(made.object.ptr(), "transpose", "ii", 1, 2);
    if (!turned) throw_python_error();
    return py::reinterpret_steal<py::object>(turned);
  });
}
PyMethodDef methods[] = {
    {"attention_at_once", as_method(attention_at_once), METH_FASTCALL,
     "attention_at_once(query, key, value, attn_mask, is_causal, scale, enable_gqa): of torch "
     "tensors "
     "of one type; None where multiplies() is 2, NotImplemented where it is 0 or the shapes are "
     "others than the kernels'."},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

void bind_attention_backward(py::module_& m);

void bind_scaled_dot_product_attention(py::module_& m) {
  add_methods(m, methods);
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
