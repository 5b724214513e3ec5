// honed._core.attention_backward
#include "ops/_attention_backward.h"

#include <pybind11/stl.h>

#include "bindings/tensor.h"
#include "core/check.h"

namespace honed::bindings {

void bind_attention_backward(py::module_& m) {
  m.def(
      "attention_backward",
      [](const Tensor& dout, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
         const Tensor& lse, const OptionalTensor& mask, float scale, bool causal, int64_t offset,
         float softcap) {
        AttentionBackwardArgs args{};
        AttentionArgs& a = args.forward;
        a.q = q->data, a.k = k->data, a.v = v->data, a.out = out->data;
        for (int d = 0; d < 3; ++d) {
          a.q_stride[d] = q->strides[d], a.k_stride[d] = k->strides[d];
          a.v_stride[d] = v->strides[d], a.out_stride[d] = out->strides[d];
          args.dout_stride[d] = dout->strides[d];
        }
        a.batch = q->size(0), a.heads = q->size(1), a.kv_heads = k->size(1);
        a.q_len = q->size(2), a.kv_len = k->size(2), a.head_dim = q->size(3),
        a.value_dim = v->size(3);
        a.dtype = q->dtype, a.kv_dtype = k->dtype;
        a.scale = scale, a.softcap = softcap;
        a.window_left = kNoWindow, a.window_right = causal ? 0 : kNoWindow, a.offset = offset;
        a.lse = static_cast<float*>(lse->data);
        if (mask) {
          a.mask = {(*mask)->data, (*mask)->dtype, {}};
          for (int d = 1; d <= 4; ++d)
            a.mask.stride[4 - d] =
                d <= (*mask)->ndim && (*mask)->size(-d) != 1 ? (*mask)->stride(-d) : 0;
        }
        NewTensor dq = empty_like(q), dk = empty_like(k), dv = empty_like(v);
        args.dout = dout->data;
        args.dq = dq.view.data, args.dk = dk.view.data, args.dv = dv.view.data;
        for (int d = 0; d < 3; ++d) {
          args.dq_stride[d] = dq.view.strides[d], args.dk_stride[d] = dk.view.strides[d];
          args.dv_stride[d] = dv.view.strides[d];
        }
        {
          py::gil_scoped_release released;
          attention_backward(args);
        }
        return py::make_tuple(dq.object, dk.object, dv.object);
      },
      py::arg("dout"), py::arg("query"), py::arg("key"), py::arg("value"), py::arg("out"),
      py::arg("lse"), py::arg("mask"), py::arg("scale"), py::arg("causal"), py::arg("offset") = 0,
      py::arg("softcap") = 0.0f);
}

}  // namespace honed::bindings
