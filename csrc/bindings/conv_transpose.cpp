// honed._core.conv_transpose
#include "ops/conv_transpose.h"

#include "bindings/_conv.h"

namespace honed::bindings {

namespace {

using I = int64_t;

// Positions that an axis of the input reaches, at least; the output may have more.
void check_size(int64_t size, int64_t input, const ConvShape& s, int axis) {
  const int64_t reached =
      (input - 1) * s.stride[axis] + (s.kernel[axis] - 1) * s.dilation[axis] + 1 - s.before[axis];
  HONED_CHECK(size > 0, "conv_transpose: output has ", size,
              " elements along a dimension, where the input reaches ", reached,
              ", expected at least 1");
}

auto forward(Results& results, const TensorView& input, const TensorView& weight,
             const TensorView* bias, const TensorView* residual, I stride_d, I stride_h, I stride_w,
             I before_d, I before_h, I before_w, I dilation_d, I dilation_h, I dilation_w, I size_d,
             I size_h, I size_w, I groups, I activation, bool exact) {
  const char* op = "conv_transpose";
  const Geometry g{{stride_d, stride_h, stride_w},
                   {before_d, before_h, before_w},
                   {},
                   {dilation_d, dilation_h, dilation_w},
                   groups,
                   0};
  const TensorView x = spatial(input, op), w = spatial(weight, op);
  HONED_CHECK(weight.ndim == input.ndim, op, ": input has shape ", shape_of(input), " and weight ",
              shape_of(weight), ", expected as many dimensions");
  const ConvShape shape = g.shape(op, w.shape + 2);
  HONED_CHECK(groups > 0 && x.size(1) % groups == 0 && w.size(0) == x.size(1), op, ": input has ",
              x.size(1), " channels in ", groups, " groups and weight has shape ", shape_of(weight),
              ", expected as many channels in its first dimension");
  HONED_CHECK_TYPE(is_real(x.dtype) && w.dtype == x.dtype, op, ": input is ", name_of(x.dtype),
                   " and weight ", name_of(w.dtype),
                   ", expected one type of float64, float32, float16 and bfloat16");
  const Activation act = activation_at(op, activation);
  HONED_CHECK_TYPE(x.dtype != DType::f64 || act <= Activation::relu6, op,
                   ": activation of float64 is not none, relu or relu6, expected one of these");
  const int64_t sizes[3] = {size_d, size_h, size_w};
  TensorView like = input;
  like.shape[1] = groups * w.size(1);
  const int absent = 5 - input.ndim;
  for (int i = 0; i < 3; ++i) {
    check_size(sizes[i], x.size(i + 2), shape, i);
    if (i >= absent) like.shape[i - absent + 2] = sizes[i];
  }
  HONED_CHECK(!bias || (bias->ndim == 1 && bias->size(0) == like.size(1)), op, ": bias has shape ",
              bias ? shape_of(*bias) : "", ", expected [", like.size(1), "]");
  const Finish finish(op, like, bias, residual, act);
  for (const TensorView* t : {bias, residual})
    HONED_CHECK_TYPE(!t || t->dtype == x.dtype, op, ": bias or residual is ",
                     t ? name_of(t->dtype) : "", ", expected the input's type, ", name_of(x.dtype));
  const TensorView out = make_image(results, input, like);
  return [=] {
    conv_transpose(spatial(out, "conv_transpose"), x, w, shape, finish.epilogue(), exact);
  };
}

}  // namespace

void bind_conv_gradient(py::module_& m);

void bind_conv_transpose(py::module_& m) {
  define<forward>(
      m,
      "conv_transpose(Tensor input, Tensor weight, Tensor? bias, Tensor? residual, int stride_d, "
      "int stride_h, int stride_w, int before_d, int before_h, int before_w, int dilation_d, "
      "int dilation_h, int dilation_w, SymInt size_d, SymInt size_h, SymInt size_w, int groups, "
      "int activation, bool exact) -> Tensor");
  bind_conv_gradient(m);
}

}  // namespace honed::bindings
