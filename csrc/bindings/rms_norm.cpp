// honed._core.rms_norm, rms_norm_backward
#include "ops/rms_norm.h"

#include "bindings/function.h"
#include "core/check.h"

namespace honed::bindings {

namespace {

auto forward(Results& results, const TensorView& input, const TensorView* weight, double eps) {
  HONED_CHECK(input.ndim > 0, "rms_norm: input has no dimensions, expected at least 1");
  TensorView out = results.make_like(input);
  return [=] {
    Rows x(input), y(out);
    Dense w(weight);
    rms_norm(y.view(), x.view(), w.view(), eps);
  };
}

auto backward(Results& results, const TensorView& grad, const TensorView& input,
              const TensorView* weight, double eps, bool need_input, bool need_weight) {
  HONED_CHECK(input.ndim > 0 && same_shape(grad, input), "rms_norm_backward: grad has shape ",
              shape_of(grad), " and input ", shape_of(input), ", expected equal shapes");
  TensorView d_input = results.make_if(need_input, &input);
  TensorView d_weight = results.make_if(need_weight, weight);
  return [=] {
    Rows g(grad), x(input);
    Dense w(weight);
    std::optional<Rows> dx;
    if (need_input) dx.emplace(d_input);
    rms_norm_backward(dx ? &dx->view() : nullptr, weight && need_weight ? &d_weight : nullptr,
                      g.view(), x.view(), w.view(), eps);
  };
}

}  // namespace

void bind_rms_norm(py::module_& m) {
  define<forward>(m, "rms_norm(Tensor input, Tensor? weight, float eps) -> Tensor");
  define<backward>(m,
                   "rms_norm_backward(Tensor grad, Tensor input, Tensor? weight, float eps, "
                   "bool need_input, bool need_weight) -> (Tensor, Tensor)");
}

}  // namespace honed::bindings
