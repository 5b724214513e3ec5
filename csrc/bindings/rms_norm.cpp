// honed._core.rms_norm, rms_norm_backward
#include "ops/rms_norm.h"

#include "bindings/norm.h"

namespace honed::bindings {

namespace {

auto forward(Results& results, const TensorView& input, const TensorView* weight, double eps,
             int64_t dims, int64_t size) {
  check_last("rms_norm", input, dims, size);
  check_vector("rms_norm", "weight", weight, input, dims);
  TensorView out = results.make_like(input);
  return [=] {
    NormRows x(input, dims), y(out, dims);
    Dense w(weight);
    rms_norm(y.view(), x.view(), w.view(), eps);
  };
}

auto backward(Results& results, const TensorView& grad, const TensorView& input,
              const TensorView* weight, double eps, int64_t dims, bool need_input,
              bool need_weight) {
  check_dims("rms_norm_backward", input, dims);
  check_like("rms_norm_backward", "grad", &grad, input);
  check_vector("rms_norm_backward", "weight", weight, input, dims);
  TensorView d_input = results.make_if(need_input, &input);
  TensorView d_weight = results.make_if(need_weight, weight);
  return [=] {
    NormRows g(grad, dims), x(input, dims);
    Dense w(weight);
    std::optional<NormRows> dx;
    if (need_input) dx.emplace(d_input, dims);
    rms_norm_backward(dx ? &dx->view() : nullptr, weight && need_weight ? &d_weight : nullptr,
                      g.view(), x.view(), w.view(), eps);
  };
}

}  // namespace

void bind_rms_norm(py::module_& m) {
  define<forward>(
      m, "rms_norm(Tensor input, Tensor? weight, float eps, int dims, SymInt size) -> Tensor");
  define<backward>(m,
                   "rms_norm_backward(Tensor grad, Tensor input, Tensor? weight, float eps, int "
                   "dims, bool need_input, bool need_weight) -> (Tensor, Tensor)");
}

}  // namespace honed::bindings
