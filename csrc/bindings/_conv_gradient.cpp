// honed._core.conv_weight_gradient
#include "ops/_conv_gradient.h"

#include "bindings/_conv.h"
#include "bindings/elementwise.h"

namespace honed::bindings {

namespace {

using I = int64_t;

// weight: only its shape and layout count. Without need_weight the others than grad do not.
auto weight_gradient(Results& results, const TensorView& grad, const TensorView& input,
                     const TensorView& weight, I stride_d, I stride_h, I stride_w, I before_d,
                     I before_h, I before_w, I dilation_d, I dilation_h, I dilation_w, I groups,
                     I border, bool need_weight, bool need_bias) {
  const char* op = "conv_weight_gradient";
  const Geometry geometry{{stride_d, stride_h, stride_w},
                          {before_d, before_h, before_w},
                          {},
                          {dilation_d, dilation_h, dilation_w},
                          groups,
                          border};
  const TensorView g = spatial(grad, op), x = spatial(input, op), w = spatial(weight, op);
  const ConvShape shape = geometry.shape(op, w.shape + 2);
  HONED_CHECK(!need_weight || (grad.ndim == input.ndim && grad.ndim == weight.ndim &&
                               g.size(0) == x.size(0) && groups > 0 && g.size(1) == w.size(0) &&
                               x.size(1) == groups * w.size(1) && g.size(1) % groups == 0),
              op, ": grad has shape ", shape_of(grad), ", input ", shape_of(input), " and weight ",
              shape_of(weight), ", expected those of a convolution with ", groups, " groups");
  HONED_CHECK_TYPE(is_real(x.dtype) && g.dtype == x.dtype && w.dtype == x.dtype, op, ": grad is ",
                   name_of(g.dtype), ", input ", name_of(x.dtype), " and weight ", name_of(w.dtype),
                   ", expected one type of float64, float32, float16 and bfloat16");
  for (int i = 0; i < 3 && need_weight; ++i) {
    const int64_t last = (g.size(i + 2) - 1) * shape.stride[i] - shape.before[i] +
                         (shape.kernel[i] - 1) * shape.dilation[i];
    const int64_t size = x.size(i + 2), beyond = std::max(shape.before[i], last - size + 1);
    const int64_t most = shape.border == Border::reflect ? size - 1 : size;
    HONED_CHECK(shape.border == Border::zeros || shape.border == Border::replicate ||
                    beyond <= std::max<int64_t>(most, 0),
                op, ": grad of shape ", shape_of(grad), " takes ", beyond,
                " elements of border, expected at most ", most);
  }
  TensorView dw{}, db{};
  if (need_weight)
    dw = make_as(results, weight);
  else
    results.skip();
  if (need_bias)
    db = results.make({&g.shape[1], 1}, g.dtype);
  else
    results.skip();
  return [=] {
    const TensorView wide = need_weight ? spatial(dw, "conv_weight_gradient") : dw;
    conv_weight_gradient(need_weight ? &wide : nullptr, need_bias ? &db : nullptr, g, x, shape);
  };
}

}  // namespace

void bind_conv_gradient(py::module_& m) {
  define<weight_gradient>(
      m,
      "conv_weight_gradient(Tensor grad, Tensor input, Tensor weight, int stride_d, int stride_h, "
      "int stride_w, int before_d, int before_h, int before_w, int dilation_d, int dilation_h, "
      "int dilation_w, int groups, int border, bool need_weight, bool need_bias) -> "
      "(Tensor, Tensor)");
}

}  // namespace honed::bindings
