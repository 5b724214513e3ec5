// honed._core: conv, conv_packed, PackedConvWeight, pack_conv_weight
#include "ops/conv.h"

#include <pybind11/stl.h>

#include <memory>

#include "bindings/_conv.h"
#include "bindings/caster.h"
#include "ops/_conv_depthwise.h"
#include "ops/_winograd.h"

namespace honed::bindings {

template <>
struct FromPython<const ConvWeight&> {
  const ConvWeight* weight = nullptr;
  bool take(PyObject* object) {
    static const py::handle type = py::type::of<ConvWeight>().release();
    if (reinterpret_cast<PyObject*>(Py_TYPE(object)) == type.ptr())
      weight = py::handle(object).cast<const ConvWeight*>();
    return weight != nullptr;
  }
  const ConvWeight& get() const { return *weight; }
};

namespace {

// An empty result of the right shape and layout, once the geometry fits.
TensorView make_output(Results& results, const TensorView& input, const ConvShape& s,
                       const int64_t* after, int64_t outputs) {
  TensorView shape = input, x = spatial(input, "conv");
  const int absent = 5 - input.ndim;
  shape.shape[1] = outputs;
  for (int i = 0; i < 3; ++i) {
    const int64_t size = x.size(i + 2), most = std::max(s.before[i], after[i]);
    HONED_CHECK(s.before[i] >= 0 && after[i] >= 0, "conv: padding is ", s.before[i], " and ",
                after[i], ", expected at least 0");
    HONED_CHECK(s.border != Border::reflect || most < std::max<int64_t>(size, 1),
                "conv: padding is ", most, " with reflect, expected less than the input's ", size);
    HONED_CHECK(s.border != Border::circular || most <= size, "conv: padding is ", most,
                " with circular, expected at most the input's ", size);
    HONED_CHECK(s.border == Border::zeros || size > 0 || most == 0, "conv: input has shape ",
                shape_of(input), ", expected elements to repeat around it");
    const int64_t extent =
        conv_extent(size, s.kernel[i], s.stride[i], s.dilation[i], s.before[i], after[i]);
    HONED_CHECK(s.kernel[i] > 0 && extent > 0, "conv: input has ", size,
                " elements along a dimension and ", s.before[i] + after[i],
                " of padding, expected at least the kernel's ",
                s.dilation[i] * (s.kernel[i] - 1) + 1);
    if (i >= absent) shape.shape[i - absent + 2] = extent;
  }
  return make_image(results, input, shape);
}

using I = int64_t;

auto forward(Results& results, const TensorView& input, const TensorView& weight,
             const TensorView* bias, const TensorView* residual, I stride_d, I stride_h, I stride_w,
             I before_d, I before_h, I before_w, I after_d, I after_h, I after_w, I dilation_d,
             I dilation_h, I dilation_w, I groups, I border, I activation, bool exact) {
  const Geometry g{{stride_d, stride_h, stride_w},
                   {before_d, before_h, before_w},
                   {after_d, after_h, after_w},
                   {dilation_d, dilation_h, dilation_w},
                   groups,
                   border};
  HONED_CHECK(weight.ndim == input.ndim, "conv: input has shape ", shape_of(input), " and weight ",
              shape_of(weight), ", expected as many dimensions");
  const TensorView w = spatial(weight, "conv");
  const ConvShape shape = g.shape("conv", w.shape + 2);
  const Activation act = activation_at("conv", activation);
  const TensorView out = make_output(results, input, shape, g.after, w.size(0));
  const Finish finish("conv", out, bias, residual, act);
  return [=] {
    conv(spatial(out, "conv"), spatial(input, "conv"), w, shape, finish.epilogue(), exact);
  };
}

auto packed(Results& results, const TensorView& input, const ConvWeight& weight,
            const TensorView* residual, I stride_d, I stride_h, I stride_w, I before_d, I before_h,
            I before_w, I after_d, I after_h, I after_w, I dilation_d, I dilation_h, I dilation_w,
            I border, I activation, bool exact) {
  const Geometry g{{stride_d, stride_h, stride_w}, {before_d, before_h, before_w},
                   {after_d, after_h, after_w},    {dilation_d, dilation_h, dilation_w},
                   weight.sizes().groups,          border};
  const ConvShape shape = g.shape("conv", weight.sizes().kernel);
  const Activation act = activation_at("conv", activation);
  const TensorView out = make_output(results, input, shape, g.after, weight.sizes().outputs);
  const Finish finish("conv", out, nullptr, residual, act);
  return [=, &weight] {
    conv(spatial(out, "conv"), spatial(input, "conv"), weight, shape, finish.epilogue(), exact);
  };
}

// A 1 x 1 convolution, then a depthwise one.
auto joined(Results& results, const TensorView& input, const ConvWeight& first, I act,
            const ConvWeight& second, const TensorView* residual, I stride_d, I stride_h,
            I stride_w, I before_d, I before_h, I before_w, I after_d, I after_h, I after_w,
            I dilation_d, I dilation_h, I dilation_w, I border, I activation) {
  const Geometry g{{stride_d, stride_h, stride_w}, {before_d, before_h, before_w},
                   {after_d, after_h, after_w},    {dilation_d, dilation_h, dilation_w},
                   second.sizes().groups,          border};
  const ConvShape shape = g.shape("conv_depthwise", second.sizes().kernel);
  const Activation inner = activation_at("conv_depthwise", act);
  const Activation outer = activation_at("conv_depthwise", activation);
  const TensorView out = make_output(results, input, shape, g.after, second.sizes().outputs);
  const Finish finish("conv_depthwise", out, nullptr, residual, outer);
  return [=, &first, &second] {
    conv_depthwise(spatial(out, "conv_depthwise"), spatial(input, "conv_depthwise"), first, inner,
                   second, shape, finish.epilogue());
  };
}

std::shared_ptr<ConvWeight> pack_conv_weight(const Tensor& weight, const OptionalTensor& bias,
                                             int64_t groups, bool int8) {
  require_cpu("conv", {&weight, bias ? &*bias : nullptr});
  const TensorView w = spatial(weight.view(), "conv");
  py::gil_scoped_release released;
  return std::make_shared<ConvWeight>(w, bias ? &bias->view() : nullptr, groups, int8);
}

}  // namespace

void bind_conv(py::module_& m) {
  py::classh<ConvWeight>(m, "PackedConvWeight", "A convolution's weight in the kernels' layout.")
      .def_property_readonly("kind",
                             [](const ConvWeight& w) { return w.int8() ? "int8" : "exact"; })
      .def_property_readonly("out_channels", [](const ConvWeight& w) { return w.sizes().outputs; })
      .def_property_readonly(
          "in_channels", [](const ConvWeight& w) { return w.sizes().channels * w.sizes().groups; })
      .def_property_readonly("groups", [](const ConvWeight& w) { return w.sizes().groups; })
      .def_property_readonly("kernel_size",
                             [](const ConvWeight& w) {
                               const int64_t* k = w.sizes().kernel;
                               return py::make_tuple(k[0], k[1], k[2]);
                             })
      .def_property_readonly("nbytes", &ConvWeight::bytes);
  m.def("pack_conv_weight", &pack_conv_weight, "Packs a convolution's weight and bias.",
        py::arg("weight"), py::arg("bias"), py::arg("groups"), py::arg("int8"));
  m.def("set_winograd", &set_winograd,
        "For tests: outputs a side of Winograd's tiles, 2 or 4, 0 for none, -1 by cost.",
        py::arg("tile"));
  define<forward>(
      m,
      "conv(Tensor input, Tensor weight, Tensor? bias, Tensor? residual, int stride_d, "
      "int stride_h, int stride_w, int before_d, int before_h, int before_w, int after_d, "
      "int after_h, int after_w, int dilation_d, int dilation_h, int dilation_w, int groups, "
      "int border, int activation, bool exact) -> Tensor");
  define_for_python<packed>(
      m,
      "conv_packed(Tensor input, PackedConvWeight weight, Tensor? residual, int stride_d, "
      "int stride_h, int stride_w, int before_d, int before_h, int before_w, int after_d, "
      "int after_h, int after_w, int dilation_d, int dilation_h, int dilation_w, int border, "
      "int activation, bool exact) -> Tensor");
  define_for_python<joined>(
      m,
      "conv_depthwise(Tensor input, PackedConvWeight first, int first_activation, "
      "PackedConvWeight weight, Tensor? residual, int stride_d, int stride_h, int stride_w, "
      "int before_d, int before_h, int before_w, int after_d, int after_h, int after_w, "
      "int dilation_d, int dilation_h, int dilation_w, int border, int activation) -> Tensor");
}

}  // namespace honed::bindings
