// honed._core.silu, silu_backward
#include "ops/silu.h"

#include "bindings/elementwise.h"
#include "core/check.h"

namespace honed::bindings {

namespace {

auto forward(Results& results, const TensorView& input) {
  TensorView out = make_as(results, input);
  return [=] {
    Matrices<1, 1> m({input, out});
    silu(m[1], m[0]);
  };
}

auto backward(Results& results, const TensorView& grad, const TensorView& input) {
  HONED_CHECK(same_shape(grad, input), "silu_backward: grad has shape ", shape_of(grad),
              " and input ", shape_of(input), ", expected equal shapes");
  TensorView d_input = make_as(results, input);
  return [=] {
    Matrices<2, 1> m({input, grad, d_input});
    silu_backward(m[2], m[1], m[0]);
  };
}

}  // namespace

void bind_silu(py::module_& m) {
  define<forward>(m, "silu(Tensor input) -> Tensor");
  define<backward>(m, "silu_backward(Tensor grad, Tensor input) -> Tensor");
}

}  // namespace honed::bindings
