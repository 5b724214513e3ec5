// honed._core: PackedWeight, pack_weight, exact_kind, linear
#include "ops/linear.h"

#include <pybind11/stl.h>

#include <memory>

#include "bindings/packed_weight.h"
#include "core/check.h"

namespace honed::bindings {

WeightKind weight_kind_of(const std::string& name) {
  for (WeightKind kind : {WeightKind::f32, WeightKind::f16, WeightKind::bf16, WeightKind::int8,
                          WeightKind::int4})
    if (name == name_of(kind)) return kind;
  raise<ValueError>("linear: kind is '", name, "', expected f32, f16, bf16, int8 or int4");
}

Activation activation_of(const std::string& name) {
  if (name == "none") return Activation::none;
  if (name == "relu") return Activation::relu;
  if (name == "gelu") return Activation::gelu;
  if (name == "gelu_tanh") return Activation::gelu_tanh;
  if (name == "silu") return Activation::silu;
  raise<ValueError>("linear: activation is '", name,
                    "', expected none, relu, gelu, gelu_tanh or silu");
}

namespace {

// The tensors of a list, kept while their views are used.
struct TensorList {
  explicit TensorList(const py::list& list, const char* what) {
    for (py::handle item : list) {
      Tensor tensor;
      HONED_CHECK_TYPE(tensor.borrow(item.ptr()), "linear: ", what, " are a list of tensors, got ",
                       std::string(py::str(py::type::of(item))));
      tensors.push_back(std::move(tensor));
      views.push_back(tensors.back().view());
    }
  }
  std::vector<Tensor> tensors;
  std::vector<TensorView> views;
};

std::shared_ptr<PackedWeight> pack_weight(const py::list& weights, const std::string& kind, int group,
                                          const std::optional<py::list>& biases, bool interleave) {
  TensorList w(weights, "weights"), b(biases ? *biases : py::list(), "biases");
  py::gil_scoped_release released;
  return std::make_shared<PackedWeight>(w.views, b.views, weight_kind_of(kind), group, interleave);
}

py::object unpack(const PackedWeight& weight) {
  const PackedView& v = weight.view();
  py::object like = py::module_::import("torch").attr("empty")(0);
  Tensor prototype;
  prototype.borrow(like.ptr());
  int64_t shape[] = {v.gated ? 2 * v.n : v.n, v.k};
  NewTensor out = empty(prototype, shape, DType::f32);
  weight.unpack(out.view.as<float>());
  return out.object;
}

py::object run(const Tensor& input, const PackedWeight& weight, const std::string& activation,
               const OptionalTensor& residual) {
  require_cpu("linear", {&input, residual ? &*residual : nullptr});
  HONED_CHECK(input->ndim > 0, "linear: input has no dimensions, expected at least 1");
  Activation act = activation_of(activation);
  Rows x(input.view());
  int64_t shape[kMaxDims];
  std::copy(input->shape, input->shape + input->ndim, shape);
  shape[input->ndim - 1] = weight.view().n;
  NewTensor out = empty(input, {shape, size_t(input->ndim)}, input->dtype);
  Rows y(out.view);
  std::optional<Rows> added;
  if (residual) {
    HONED_CHECK(same_shape(residual->view(), out.view), "linear: residual has shape ",
                shape_of(residual->view()), ", expected ", shape_of(out.view));
    added.emplace(residual->view());
  }
  {
    py::gil_scoped_release released;
    linear(y.view(), x.view(), weight.view(), act, added ? &added->view() : nullptr);
  }
  return out.object;
}

}  // namespace

void bind_linear(py::module_& m) {
  py::classh<PackedWeight>(m, "PackedWeight", "A weight in the layout of the linear kernels.")
      .def_property_readonly("kind", [](const PackedWeight& w) { return name_of(w.view().kind); })
      .def_property_readonly("out_features", [](const PackedWeight& w) { return w.view().n; })
      .def_property_readonly("in_features", [](const PackedWeight& w) { return w.view().k; })
      .def_property_readonly("group", [](const PackedWeight& w) { return w.view().group; })
      .def_property_readonly("gated", [](const PackedWeight& w) { return w.view().gated; })
      .def_property_readonly("nbytes", &PackedWeight::bytes)
      .def("unpack", &unpack, "The f32 matrix that the kernels multiply with.");
  m.def("pack_weight", &pack_weight, "Packs weights one below the other, or gate and up woven.",
        py::arg("weights"), py::arg("kind"), py::arg("group") = 32, py::arg("biases") = py::none(),
        py::arg("interleave") = false);
  m.def(
      "exact_kind",
      [](const py::list& weights) {
        TensorList w(weights, "weights");
        py::gil_scoped_release released;
        return name_of(exact_kind(w.views));
      },
      "The cheapest kind that holds every value exactly: f16, bf16 or f32.", py::arg("weights"));
  m.def("linear", &run, "input times a packed weight.", py::arg("input"), py::arg("weight"),
        py::arg("activation") = "none", py::arg("residual") = py::none());
}

}  // namespace honed::bindings
