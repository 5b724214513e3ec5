// honed._core.relu, relu_backward
#include "ops/relu.h"

#include "bindings/elementwise.h"
#include "core/check.h"

namespace honed::bindings {

namespace {

auto forward(Results& results, const TensorView& input) {
  TensorView out = make_as(results, input);
  return [=] {
    Matrices<1, 1> m({input, out});
    relu(m[1], m[0]);
  };
}

auto backward(Results& results, const TensorView& grad, const TensorView& result) {
  HONED_CHECK(same_shape(grad, result), "relu_backward: grad has shape ", shape_of(grad),
              " and result ", shape_of(result), ", expected equal shapes");
  TensorView d_input = make_as(results, result);
  return [=] {
    Matrices<2, 1> m({result, grad, d_input});
    relu_backward(m[2], m[1], m[0]);
  };
}

}  // namespace

void bind_relu(py::module_& m) {
  define<forward>(m, "relu(Tensor input) -> Tensor");
  define<backward>(m, "relu_backward(Tensor grad, Tensor result) -> Tensor");
}

}  // namespace honed::bindings
