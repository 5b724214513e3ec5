// honed._core.add_layer_norm, add_layer_norm_backward
#include "ops/add_layer_norm.h"

#include "bindings/norm.h"

namespace honed::bindings {

namespace {

auto forward(Results& results, const TensorView& input, const TensorView& residual,
             const TensorView* weight, const TensorView* bias, double eps, int64_t dims,
             int64_t size) {
  check_last("add_layer_norm", input, dims, size);
  check_vector("add_layer_norm", "weight", weight, input, dims);
  check_vector("add_layer_norm", "bias", bias, input, dims);
  check_like("add_layer_norm", "residual", &residual, input);
  TensorView out = results.make_like(input);
  TensorView total = results.make_like(input);
  return [=] {
    NormRows x(input, dims), y(out, dims);
    Dense w(weight), b(bias);
    NormRows r(residual, dims), s(total, dims);
    add_layer_norm({y.view(), x.view(), w.view(), b.view(), &r.view(), &s.view()}, eps);
  };
}

auto backward(Results& results, const TensorView& grad, const TensorView* grad_sum,
              const TensorView& sum, const TensorView* weight, const TensorView* bias, double eps,
              int64_t dims, bool need_input, bool need_weight, bool need_bias) {
  check_dims("add_layer_norm_backward", sum, dims);
  check_like("add_layer_norm_backward", "grad", &grad, sum);
  check_like("add_layer_norm_backward", "grad_sum", grad_sum, sum);
  check_vector("add_layer_norm_backward", "weight", weight, sum, dims);
  check_vector("add_layer_norm_backward", "bias", bias, sum, dims);
  TensorView d_input = results.make_if(need_input, &sum);
  TensorView d_weight = results.make_if(need_weight, weight);
  TensorView d_bias = results.make_if(need_bias, bias);
  return [=] {
    NormRows g(grad, dims), x(sum, dims);
    Dense w(weight);
    std::optional<NormRows> dx, gs;
    if (need_input) dx.emplace(d_input, dims);
    if (grad_sum) gs.emplace(*grad_sum, dims);
    add_layer_norm_backward(
        {dx ? &dx->view() : nullptr, weight && need_weight ? &d_weight : nullptr,
         bias && need_bias ? &d_bias : nullptr, g.view(), x.view(), w.view(),
         gs ? &gs->view() : nullptr},
        eps);
  };
}

}  // namespace

void bind_add_layer_norm(py::module_& m) {
  define<forward>(m,
                  "add_layer_norm(Tensor input, Tensor residual, Tensor? weight, Tensor? bias, "
                  "float eps, int dims, SymInt size) -> (Tensor, Tensor)");
  define<backward>(m,
                   "add_layer_norm_backward(Tensor grad, Tensor? grad_sum, Tensor sum, Tensor? "
                   "weight, Tensor? bias, float eps, int dims, bool need_input, bool need_weight, "
                   "bool need_bias) -> (Tensor, Tensor, Tensor)");
}

}  // namespace honed::bindings
