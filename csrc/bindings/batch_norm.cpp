// honed._core.batch_norm, batch_norm_training, batch_norm_backward
#include "ops/batch_norm.h"

#include "bindings/channels.h"

namespace honed::bindings {

namespace {

constexpr int kChannel = 1;

BatchNormShape shape_for(const char* op, const TensorView& x, bool last) {
  HONED_CHECK(x.ndim >= 2, op, ": input has shape ", shape_of(x),
              ", expected at least 2 dimensions");
  BatchNormShape shape{x.size(0), x.size(1), 1, last};
  for (int i = 2; i < x.ndim; ++i) shape.size *= x.size(i);
  shape.channels_last = last || shape.size == 1;
  return shape;
}

// Vectors have one dimension.
void check_vectors(const char* op, const TensorView& x, const BatchNormVectors& v) {
  const struct {
    const char* what;
    const TensorView* view;
  } given[] = {{"running_mean", v.mean}, {"running_var", v.var}, {"weight", v.w}, {"bias", v.b}};
  for (auto [what, view] : given)
    HONED_CHECK(!view || (view->ndim == 1 && view->size(0) == x.size(1)), op, ": ", what,
                " has shape ", shape_of(*view), ", expected [", x.size(1), "]");
}

void check_same(const char* op, const char* what, const TensorView* t, const TensorView& x) {
  HONED_CHECK(!t || same_shape(*t, x), op, ": ", what, " has shape ", shape_of(*t),
              ", expected input's, ", shape_of(x));
}

BatchNormActivation activation_of(int64_t number) {
  HONED_CHECK(number >= 0 && number <= 2, "batch_norm: activation is ", number,
              ", expected 0 (none), 1 (relu) or 2 (relu6)");
  return BatchNormActivation(number);
}

// An absent tensor, or one as the kernels take it.
Dense dense_in(const TensorView* t, bool last) {
  if (!t) return Dense(nullptr);
  return Dense(in_layout(*t, kChannel, last));
}

auto forward(Results& results, const TensorView& input, const TensorView& mean,
             const TensorView& var, const TensorView* weight, const TensorView* bias,
             const TensorView* residual, double eps, int64_t activation) {
  bool last = lies_channels_last(input, kChannel);
  BatchNormShape shape = shape_for("batch_norm", input, last);
  check_vectors("batch_norm", input, {&mean, &var, weight, bias});
  check_same("batch_norm", "residual", residual, input);
  BatchNormActivation act = activation_of(activation);
  TensorView out = make_in_layout(results, input, kChannel, last);
  return [=] {
    Dense x(in_layout(input, kChannel, last)), r(dense_in(residual, last)), m(mean), v(var),
        w(weight), b(bias);
    batch_norm(out, *x.view(), {m.view(), v.view(), w.view(), b.view()}, r.view(), eps, act, shape);
  };
}

auto training(Results& results, const TensorView& input, const TensorView* weight,
              const TensorView* bias, const TensorView* residual, double eps, int64_t activation) {
  bool last = lies_channels_last(input, kChannel);
  BatchNormShape shape = shape_for("batch_norm", input, last);
  check_vectors("batch_norm", input, {nullptr, nullptr, weight, bias});
  check_same("batch_norm", "residual", residual, input);
  BatchNormActivation act = activation_of(activation);
  TensorView out = make_in_layout(results, input, kChannel, last);
  DType sums = input.dtype == DType::f64 ? DType::f64 : DType::f32;
  TensorView mean = results.make({&shape.channels, 1}, sums);
  TensorView var = results.make({&shape.channels, 1}, sums);
  return [=] {
    Dense x(in_layout(input, kChannel, last)), r(dense_in(residual, last)), w(weight), b(bias);
    batch_norm_training(out, mean, var, *x.view(), {nullptr, nullptr, w.view(), b.view()}, r.view(),
                        eps, act, shape);
  };
}

auto backward(Results& results, const TensorView& grad, const TensorView& input,
              const TensorView* result, const TensorView& mean, const TensorView& var,
              const TensorView* weight, const TensorView* bias, double eps, int64_t activation,
              bool trains, bool need_input, bool need_weight, bool need_bias, bool need_residual) {
  const char* op = "batch_norm_backward";
  bool last = lies_channels_last(input, kChannel);
  BatchNormShape shape = shape_for(op, input, last);
  check_vectors(op, input, {&mean, &var, weight, bias});
  check_same(op, "grad", &grad, input);
  check_same(op, "result", result, input);
  BatchNormActivation act = activation_of(activation);
  HONED_CHECK(result || act == BatchNormActivation::none, op,
              ": got no result, expected one where there is an activation");
  auto make_if = [&](bool wanted) {
    if (wanted) return make_in_layout(results, input, kChannel, last);
    return results.skip(), TensorView{};
  };
  TensorView d_input = make_if(need_input);
  TensorView d_weight = results.make_if(need_weight, weight);
  TensorView d_bias = results.make_if(need_bias, bias);
  TensorView d_residual = make_if(need_residual);
  return [=] {
    Dense g(in_layout(grad, kChannel, last)), x(in_layout(input, kChannel, last)),
        y(dense_in(result, last)), m(mean), v(var), w(weight);
    batch_norm_backward({need_input ? &d_input : nullptr,
                         need_residual ? &d_residual : nullptr,
                         weight && need_weight ? &d_weight : nullptr,
                         bias && need_bias ? &d_bias : nullptr,
                         *g.view(),
                         *x.view(),
                         y.view(),
                         {m.view(), v.view(), w.view(), nullptr}},
                        eps, act, shape, trains);
  };
}

}  // namespace

void bind_batch_norm(py::module_& m) {
  define<forward>(m,
                  "batch_norm(Tensor input, Tensor mean, Tensor var, Tensor? weight, Tensor? bias, "
                  "Tensor? residual, float eps, int activation) -> Tensor");
  define<training>(m,
                   "batch_norm_training(Tensor input, Tensor? weight, Tensor? bias, Tensor? "
                   "residual, float eps, int activation) -> (Tensor, Tensor, Tensor)");
  define<backward>(m,
                   "batch_norm_backward(Tensor grad, Tensor input, Tensor? result, Tensor mean, "
                   "Tensor var, Tensor? weight, Tensor? bias, float eps, int activation, bool "
                   "training, bool need_input, bool need_weight, bool need_bias, bool "
                   "need_residual) -> (Tensor, Tensor, Tensor, Tensor)");
}

}  // namespace honed::bindings
