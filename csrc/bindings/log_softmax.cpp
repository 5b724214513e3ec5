// honed._core.log_softmax, log_softmax_backward
#include "ops/log_softmax.h"

#include "bindings/softmax.h"

namespace honed::bindings {

namespace {

auto forward(Results& results, const TensorView& input, int64_t dim, bool to_f32) {
  return softmax_forward<log_softmax>(results, "log_softmax", input, dim, to_f32);
}

auto backward(Results& results, const TensorView& grad, const TensorView& output, int64_t dim,
              int64_t narrow) {
  return softmax_gradient<log_softmax_backward>(results, "log_softmax_backward", grad, output, dim,
                                                narrow);
}

}  // namespace

void bind_log_softmax(py::module_& m) {
  define<forward>(m, "log_softmax(Tensor input, int dim, bool to_f32) -> Tensor");
  define<backward>(
      m, "log_softmax_backward(Tensor grad, Tensor output, int dim, int narrow) -> Tensor");
}

}  // namespace honed::bindings
