// honed._core.geglu, geglu_backward
#include "ops/geglu.h"

#include "bindings/gated.h"

namespace honed::bindings {

namespace {

auto forward(Results& results, const TensorView& gate, const TensorView* up, bool tanh) {
  Gated in("geglu", gate, up);
  TensorView out = make_as(results, in.gate);
  return [=] {
    Matrices<2, 1> m({in.gate, in.up, out});
    geglu(m[2], m[0], m[1], tanh);
  };
}

auto backward(Results& results, const TensorView& grad, const TensorView& gate,
              const TensorView* up, bool tanh, bool need_gate, bool need_up) {
  Gated in("geglu_backward", gate, up, &grad);
  Gated d = in.make(results, need_gate, need_up);
  return [=] {
    Matrices<3, 2> m({in.gate, in.up, grad, d.gate, d.up});
    geglu_backward(m.wanted(3), m.wanted(4), m[2], m[0], m[1], tanh);
  };
}

}  // namespace

void bind_geglu(py::module_& m) {
  define<forward>(m, "geglu(Tensor gate, Tensor? up, bool tanh) -> Tensor");
  define<backward>(m,
                   "geglu_backward(Tensor grad, Tensor gate, Tensor? up, bool tanh, "
                   "bool need_gate, bool need_up) -> (Tensor, Tensor)");
}

}  // namespace honed::bindings
