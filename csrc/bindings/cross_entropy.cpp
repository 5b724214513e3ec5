// honed._core.cross_entropy, cross_entropy_backward
#include "ops/cross_entropy.h"

#include "bindings/loss.h"
#include "core/check.h"

namespace honed::bindings {

namespace {

auto forward(Results& results, const TensorView& input, const TensorView& target,
             const TensorView* weight, int64_t ignore_index, int64_t reduction, double smoothing,
             double z_loss, double softcap, bool wide_loss, bool need_lse, bool need_grad) {
  const LossOptions options = loss_options(ignore_index, reduction, smoothing, z_loss, softcap);
  check_rows("cross_entropy", input, target);
  check_loss("cross_entropy", options, input.dtype);
  const DType wide = input.dtype == DType::f64 ? DType::f64 : DType::f32;
  TensorView loss = make_loss(results, input, target, options, wide_loss), lse, d_input;
  if (need_lse) {
    const int64_t shape[] = {target.numel(), 2};
    lse = results.make(shape, wide);
  } else {
    results.skip();
  }
  d_input = results.make_if(need_grad, &input);
  return [=] {
    Rows x(input);
    Dense t(target);
    std::optional<Rows> dx;
    if (need_grad) dx.emplace(d_input);
    cross_entropy(loss, need_lse ? lse.data : nullptr, dx ? &dx->view() : nullptr, x.view(),
                  *t.view(), weight, options);
  };
}

auto backward(Results& results, const TensorView& grad, const TensorView& input,
              const TensorView& target, const TensorView* weight, const TensorView& lse,
              int64_t ignore_index, double smoothing, double z_loss, double softcap) {
  const LossOptions options = loss_options(ignore_index, 0, smoothing, z_loss, softcap);
  check_rows("cross_entropy_backward", input, target);
  HONED_CHECK(same_shape(grad, target), "cross_entropy_backward: grad has shape ", shape_of(grad),
              " and target ", shape_of(target), ", expected equal shapes");
  HONED_CHECK(lse.contiguous() && lse.numel() == 2 * target.numel() &&
                  lse.dtype == (input.dtype == DType::f64 ? DType::f64 : DType::f32),
              "cross_entropy_backward: lse is ", name_of(lse.dtype), " of shape ", shape_of(lse),
              ", expected what cross_entropy gave");
  TensorView d_input = results.make_like(input);
  return [=] {
    Rows x(input), dx(d_input);
    Dense t(target), g(grad);
    cross_entropy_backward(dx.view(), *g.view(), x.view(), *t.view(), weight, lse.data, options);
  };
}

}  // namespace

void bind_cross_entropy(py::module_& m) {
  define<forward>(m,
                  "cross_entropy(Tensor input, Tensor target, Tensor? weight, int ignore_index, "
                  "int reduction, float label_smoothing, float z_loss, float softcap, "
                  "bool wide_loss, bool need_lse, bool need_grad) -> (Tensor, Tensor, Tensor)");
  define<backward>(m,
                   "cross_entropy_backward(Tensor grad, Tensor input, Tensor target, "
                   "Tensor? weight, Tensor lse, int ignore_index, float label_smoothing, "
                   "float z_loss, float softcap) -> Tensor");
}

}  // namespace honed::bindings
