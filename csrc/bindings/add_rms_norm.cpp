// honed._core.add_rms_norm, add_rms_norm_backward
#include "ops/add_rms_norm.h"

#include "bindings/norm.h"

namespace honed::bindings {

namespace {

auto forward(Results& results, const TensorView& input, const TensorView& residual,
             const TensorView* weight, double eps, int64_t dims, int64_t size) {
  check_last("add_rms_norm", input, dims, size);
  check_vector("add_rms_norm", "weight", weight, input, dims);
  check_like("add_rms_norm", "residual", &residual, input);
  TensorView out = results.make_like(input);
  TensorView total = results.make_like(input);
  return [=] {
    NormRows x(input, dims), y(out, dims);
    Dense w(weight);
    NormRows r(residual, dims), s(total, dims);
    add_rms_norm({y.view(), x.view(), w.view(), nullptr, &r.view(), &s.view()}, eps);
  };
}

auto backward(Results& results, const TensorView& grad, const TensorView* grad_sum,
              const TensorView& sum, const TensorView* weight, double eps, int64_t dims,
              bool need_input, bool need_weight) {
  check_dims("add_rms_norm_backward", sum, dims);
  check_like("add_rms_norm_backward", "grad", &grad, sum);
  check_like("add_rms_norm_backward", "grad_sum", grad_sum, sum);
  check_vector("add_rms_norm_backward", "weight", weight, sum, dims);
  TensorView d_input = results.make_if(need_input, &sum);
  TensorView d_weight = results.make_if(need_weight, weight);
  return [=] {
    NormRows g(grad, dims), x(sum, dims);
    Dense w(weight);
    std::optional<NormRows> dx, gs;
    if (need_input) dx.emplace(d_input, dims);
    if (grad_sum) gs.emplace(*grad_sum, dims);
    add_rms_norm_backward({dx ? &dx->view() : nullptr, weight && need_weight ? &d_weight : nullptr,
                           nullptr, g.view(), x.view(), w.view(), gs ? &gs->view() : nullptr},
                          eps);
  };
}

}  // namespace

void bind_add_rms_norm(py::module_& m) {
  define<forward>(m,
                  "add_rms_norm(Tensor input, Tensor residual, Tensor? weight, float eps, int "
                  "dims, SymInt size) -> (Tensor, Tensor)");
  define<backward>(
      m,
      "add_rms_norm_backward(Tensor grad, Tensor? grad_sum, Tensor sum, Tensor? weight, float eps, "
      "int dims, bool need_input, bool need_weight) -> (Tensor, Tensor)");
}

}  // namespace honed::bindings
