// honed._core.swiglu, swiglu_backward
#include "ops/swiglu.h"

#include "bindings/gated.h"

namespace honed::bindings {

namespace {

auto forward(Results& results, const TensorView& gate, const TensorView* up) {
  Gated in("swiglu", gate, up);
  TensorView out = make_as(results, in.gate);
  return [=] {
    Matrices<2, 1> m({in.gate, in.up, out});
    swiglu(m[2], m[0], m[1]);
  };
}

auto backward(Results& results, const TensorView& grad, const TensorView& gate,
              const TensorView* up, bool need_gate, bool need_up) {
  Gated in("swiglu_backward", gate, up, &grad);
  Gated d = in.make(results, need_gate, need_up);
  return [=] {
    Matrices<3, 2> m({in.gate, in.up, grad, d.gate, d.up});
    swiglu_backward(m.wanted(3), m.wanted(4), m[2], m[0], m[1]);
  };
}

}  // namespace

void bind_swiglu(py::module_& m) {
  define<forward>(m, "swiglu(Tensor gate, Tensor? up) -> Tensor");
  define<backward>(m,
                   "swiglu_backward(Tensor grad, Tensor gate, Tensor? up, "
                   "bool need_gate, bool need_up) -> (Tensor, Tensor)");
}

}  // namespace honed::bindings
