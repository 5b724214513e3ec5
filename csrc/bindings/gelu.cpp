// honed._core.gelu, gelu_backward
#include "ops/gelu.h"

#include "bindings/elementwise.h"
#include "core/check.h"

namespace honed::bindings {

namespace {

auto forward(Results& results, const TensorView& input, bool tanh) {
  TensorView out = make_as(results, input);
  return [=] {
    Matrices<1, 1> m({input, out});
    gelu(m[1], m[0], tanh);
  };
}

auto backward(Results& results, const TensorView& grad, const TensorView& input, bool tanh) {
  HONED_CHECK(same_shape(grad, input), "gelu_backward: grad has shape ", shape_of(grad),
              " and input ", shape_of(input), ", expected equal shapes");
  TensorView d_input = make_as(results, input);
  return [=] {
    Matrices<2, 1> m({input, grad, d_input});
    gelu_backward(m[2], m[1], m[0], tanh);
  };
}

}  // namespace

void bind_gelu(py::module_& m) {
  define<forward>(m, "gelu(Tensor input, bool tanh) -> Tensor");
  define<backward>(m, "gelu_backward(Tensor grad, Tensor input, bool tanh) -> Tensor");
}

}  // namespace honed::bindings
