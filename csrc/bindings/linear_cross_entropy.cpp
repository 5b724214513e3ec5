// honed._core.linear_cross_entropy
#include "ops/linear_cross_entropy.h"

#include <algorithm>

#include "bindings/loss.h"

namespace honed::bindings {

namespace {

auto run(Results& results, const TensorView& input, const TensorView& linear_weight,
         const TensorView& target, const TensorView* linear_bias, const TensorView* weight,
         const TensorView* grad, int64_t ignore_index, int64_t reduction, double smoothing,
         double z_loss, double softcap, int64_t chunk, bool wide_loss, bool need_input,
         bool need_weight, bool need_bias) {
  const LossOptions options = loss_options(ignore_index, reduction, smoothing, z_loss, softcap);
  check_rows("linear_cross_entropy", input, target);
  TensorView loss = make_loss(results, input, target, options, wide_loss);
  TensorView dx = results.make_if(need_input, &input);
  TensorView dw = results.make_if(need_weight, &linear_weight);
  TensorView db = results.make_if(need_bias, linear_bias);
  return [=]() mutable {
    Rows x(input);
    Dense t(target), g(grad);
    linear_cross_entropy({x.view(), linear_weight, *t.view(), linear_bias, weight, g.view(),
                          options, chunk, loss, need_input ? &dx : nullptr,
                          need_weight ? &dw : nullptr, linear_bias && need_bias ? &db : nullptr});
  };
}

}  // namespace

void bind_linear_cross_entropy(py::module_& m) {
  define<run>(m,
              "linear_cross_entropy(Tensor input, Tensor linear_weight, Tensor target, "
              "Tensor? linear_bias, Tensor? weight, Tensor? grad, int ignore_index, "
              "int reduction, float label_smoothing, float z_loss, float softcap, int chunk, bool "
              "wide_loss, "
              "bool need_input, bool need_weight, bool need_bias) "
              "-> (Tensor, Tensor, Tensor, Tensor)");
}

}  // namespace honed::bindings
