// honed._core.layer_norm, layer_norm_backward
#include "ops/layer_norm.h"

#include "bindings/norm.h"

namespace honed::bindings {

namespace {

auto forward(Results& results, const TensorView& input, const TensorView* weight,
             const TensorView* bias, double eps, int64_t dims, int64_t size) {
  check_last("layer_norm", input, dims, size);
  check_vector("layer_norm", "weight", weight, input, dims);
  check_vector("layer_norm", "bias", bias, input, dims);
  TensorView out = results.make_like(input);
  return [=] {
    NormRows x(input, dims), y(out, dims);
    Dense w(weight), b(bias);
    layer_norm(y.view(), x.view(), w.view(), b.view(), eps);
  };
}

auto backward(Results& results, const TensorView& grad, const TensorView& input,
              const TensorView* weight, const TensorView* bias, double eps, int64_t dims,
              bool need_input, bool need_weight, bool need_bias) {
  check_dims("layer_norm_backward", input, dims);
  check_like("layer_norm_backward", "grad", &grad, input);
  check_vector("layer_norm_backward", "weight", weight, input, dims);
  check_vector("layer_norm_backward", "bias", bias, input, dims);
  TensorView d_input = results.make_if(need_input, &input);
  TensorView d_weight = results.make_if(need_weight, weight);
  TensorView d_bias = results.make_if(need_bias, bias);
  return [=] {
    NormRows g(grad, dims), x(input, dims);
    Dense w(weight);
    std::optional<NormRows> dx;
    if (need_input) dx.emplace(d_input, dims);
    layer_norm_backward({dx ? &dx->view() : nullptr, weight && need_weight ? &d_weight : nullptr,
                         bias && need_bias ? &d_bias : nullptr, g.view(), x.view(), w.view()},
                        eps);
  };
}

}  // namespace

void bind_layer_norm(py::module_& m) {
  define<forward>(m,
                  "layer_norm(Tensor input, Tensor? weight, Tensor? bias, float eps, int dims, "
                  "SymInt size) -> Tensor");
  define<backward>(
      m,
      "layer_norm_backward(Tensor grad, Tensor input, Tensor? weight, Tensor? bias, float eps, int "
      "dims, bool need_input, bool need_weight, bool need_bias) -> (Tensor, Tensor, Tensor)");
}

}  // namespace honed::bindings
