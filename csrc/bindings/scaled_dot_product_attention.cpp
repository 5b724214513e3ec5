// honed._core.scaled_dot_product_attention
#include "ops/scaled_dot_product_attention.h"

#include <pybind11/stl.h>

#include "bindings/tensor.h"
#include "core/check.h"

namespace honed::bindings {

namespace {

// Four dimensions, leading ones added; a copy only where the last one has no unit stride.
class Heads {
 public:
  Heads(const char* what, const Tensor& tensor) {
    HONED_CHECK(tensor->ndim >= 2 && tensor->ndim <= 4, "scaled_dot_product_attention: ", what,
                " has shape ", shape_of(tensor.view()), ", expected 2 to 4 dimensions");
    view_ = tensor.view();
    if (view_.size(-1) > 1 && view_.stride(-1) != 1) view_ = *dense_.emplace(view_).view();
    for (; view_.ndim < 4; ++view_.ndim)
      for (int d = view_.ndim; d >= 0; --d) {
        view_.shape[d] = d ? view_.shape[d - 1] : 1;
        view_.strides[d] = d ? view_.strides[d - 1] : 0;
      }
  }
  const TensorView& view() const { return view_; }

 private:
  TensorView view_;
  std::optional<Dense> dense_;
};

}  // namespace

void bind_attention_backward(py::module_& m);

void bind_scaled_dot_product_attention(py::module_& m) {
  bind_attention_backward(m);
  m.def(
      "scaled_dot_product_attention",
      [](const Tensor& query, const Tensor& key, const Tensor& value,
         const OptionalTensor& attn_mask, float scale, bool causal, int64_t causal_offset,
         float softcap, const OptionalTensor& key_mask) {
        require_cpu("scaled_dot_product_attention",
                    {&query, &key, &value, attn_mask ? &*attn_mask : nullptr,
                     key_mask ? &*key_mask : nullptr});
        Heads q("query", query), k("key", key), v("value", value);
        Dense seen(key_mask);
        // In memory (B,T,H,Dv), so that joining the heads afterwards moves nothing.
        const TensorView& shape = q.view();
        int64_t dims[4] = {shape.size(0), shape.size(2), shape.size(1), v.view().size(3)};
        NewTensor made = empty(query, dims, query->dtype);
        TensorView out = made.view;
        std::swap(out.shape[1], out.shape[2]);
        std::swap(out.strides[1], out.strides[2]);
        {
          py::gil_scoped_release released;
          scaled_dot_product_attention(out, q.view(), k.view(), v.view(),
                                       attn_mask ? &attn_mask->view() : nullptr, seen.view(), scale,
                                       softcap, causal, causal_offset);
        }
        return made.object;
      },
      "Attention; the result is (B,T,H,Dv). Fewer than 4 dimensions count as missing leading ones.",
      py::arg("query"), py::arg("key"), py::arg("value"), py::arg("attn_mask"), py::arg("scale"),
      py::arg("causal"), py::arg("causal_offset") = 0, py::arg("softcap") = 0.0f,
      py::arg("key_mask") = py::none());
}

}  // namespace honed::bindings
