// Temporary.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include "bindings/caster.h"
#include "core/arena.h"
#include "ops/_depthwise.h"
namespace honed::bindings {
namespace {
using I3 = std::array<int64_t, 3>;
ConvShape shape_from(const TensorView& w, I3 s, I3 d, I3 b, int64_t groups, int border) {
  ConvShape r{};
  for (int i = 0; i < 3; ++i) { r.kernel[i] = w.size(2 + i); r.stride[i] = s[i]; r.dilation[i] = d[i]; r.before[i] = b[i]; }
  r.groups = groups; r.border = Border(border);
  return r;
}
}
void bind_dwtemp(py::module_& m) {
  m.def("dw", [](const Tensor& y, const Tensor& x, const Tensor& w, const OptionalTensor& bias, const OptionalTensor& res, I3 s, I3 d, I3 b, int border, int act) {
    py::gil_scoped_release no;
    ConvShape shape = shape_from(w.view(), s, d, b, x->size(1), border);
    Scratch p(depthwise_weight_bytes(w.view()));
    depthwise_weight(w.view(), p.as<void>());
    ConvEpilogue e; e.bias = bias ? &bias->view() : nullptr; e.residual = res ? &res->view() : nullptr; e.activation = Activation(act);
    depthwise(y.view(), x.view(), p.as<void>(), shape, e);
  });
  m.def("dw_input", [](const Tensor& dx, const Tensor& g, const Tensor& w, I3 s, I3 d, I3 b, int border) {
    py::gil_scoped_release no;
    ConvShape shape = shape_from(w.view(), s, d, b, dx->size(1), border);
    Scratch p(depthwise_weight_bytes(w.view()));
    depthwise_weight(w.view(), p.as<void>());
    depthwise_input_gradient(dx.view(), g.view(), p.as<void>(), shape);
  });
  m.def("dw_weight", [](const Tensor& dw, const Tensor& g, const Tensor& x, I3 s, I3 d, I3 b, int border) {
    py::gil_scoped_release no;
    depthwise_weight_gradient(dw.view(), g.view(), x.view(), shape_from(dw.view(), s, d, b, x->size(1), border));
  });
  m.def("dw_pack", [](const Tensor& w, const Tensor& to) { depthwise_weight(w.view(), to->data); });
  m.def("dw_packed", [](const Tensor& y, const Tensor& x, const Tensor& w, const Tensor& p, I3 s, I3 d, I3 b) {
    py::gil_scoped_release no;
    depthwise(y.view(), x.view(), p->data, shape_from(w.view(), s, d, b, x->size(1), 0), {});
  });
}
}  // namespace honed::bindings
