// honed._core.group_norm, group_norm_backward
#include "ops/group_norm.h"

#include "bindings/function.h"

namespace honed::bindings {

namespace {

void check_channels(const char* op, const char* what, const TensorView* v, const TensorView& x) {
  HONED_CHECK(x.ndim >= 2, op, ": input has shape ", shape_of(x),
              ", expected at least 2 dimensions");
  HONED_CHECK(!v || (v->ndim == 1 && v->size(0) == x.size(1)), op, ": ", what, " has shape ",
              shape_of(*v), ", expected [", x.size(1), "]");
}

auto forward(Results& results, const TensorView& input, int64_t groups, const TensorView* weight,
             const TensorView* bias, double eps) {
  check_channels("group_norm", "weight", weight, input);
  check_channels("group_norm", "bias", bias, input);
  TensorView out = results.make_like(input);
  return [=] {
    Dense x(input), w(weight), b(bias);
    group_norm(out, *x.view(), w.view(), b.view(), groups, eps);
  };
}

auto backward(Results& results, const TensorView& grad, const TensorView& input, int64_t groups,
              const TensorView* weight, const TensorView* bias, double eps, bool need_input,
              bool need_weight, bool need_bias) {
  check_channels("group_norm_backward", "weight", weight, input);
  check_channels("group_norm_backward", "bias", bias, input);
  TensorView d_input = results.make_if(need_input, &input);
  TensorView d_weight = results.make_if(need_weight, weight);
  TensorView d_bias = results.make_if(need_bias, bias);
  return [=] {
    Dense g(grad), x(input), w(weight);
    group_norm_backward(
        {need_input ? &d_input : nullptr, weight && need_weight ? &d_weight : nullptr,
         bias && need_bias ? &d_bias : nullptr, *g.view(), *x.view(), w.view()},
        groups, eps);
  };
}

}  // namespace

void bind_group_norm(py::module_& m) {
  define<forward>(m,
                  "group_norm(Tensor input, int groups, Tensor? weight, Tensor? bias, float eps) "
                  "-> Tensor");
  define<backward>(m,
                   "group_norm_backward(Tensor grad, Tensor input, int groups, Tensor? weight, "
                   "Tensor? bias, float eps, bool need_input, bool need_weight, bool need_bias) "
                   "-> (Tensor, Tensor, Tensor)");
}

}  // namespace honed::bindings
