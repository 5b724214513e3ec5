// honed._core: PackedWeight, pack_weight
#include "ops/quantize_weight.h"

#include <pybind11/stl.h>

#include <memory>
#include <string>

#include "bindings/_packed_file.h"
#include "bindings/caster.h"
#include "core/check.h"

namespace honed::bindings {

std::optional<WeightKind> weight_kind_of(const std::string& name) {
  if (name == "exact") return std::nullopt;
  for (WeightKind kind : {WeightKind::f32, WeightKind::f16, WeightKind::bf16, WeightKind::int8,
                          WeightKind::int4, WeightKind::grid4, WeightKind::grid8})
    if (name == name_of(kind)) return kind;
  raise<ValueError>("linear: kind is '", name,
                    "', expected exact, f32, f16, bf16, int8, int4, grid4 or grid8");
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
      kept.push_back(py::reinterpret_borrow<py::object>(item));
      views.push_back(tensors.back().view());
      require_cpu("linear", {&tensors.back()});
    }
  }
  std::vector<Tensor> tensors;
  std::vector<TensorView> views;
  std::vector<py::object> kept;  // the list may change while the GIL is released
};

std::shared_ptr<PackedWeight> pack_weight(const py::list& weights, const std::string& kind,
                                          int group, const std::optional<py::list>& biases,
                                          bool interleave, const OptionalTensor& importance,
                                          const std::string& rows) {
  HONED_CHECK(rows == "int8" || rows == "float", "linear: rows is '", rows,
              "', expected int8 or float");
  require_cpu("linear", {importance ? &*importance : nullptr});
  TensorList w(weights, "weights"), b(biases ? *biases : py::list(), "biases");
  py::gil_scoped_release released;
  WeightOptions options{group, interleave, rows == "float",
                        importance ? &importance->view() : nullptr};
  return std::make_shared<PackedWeight>(w.views, b.views, weight_kind_of(kind), options);
}

py::object unpack(const PackedWeight& weight) {
  const PackedView& v = weight.view();
  py::dict modules = py::module_::import("sys").attr("modules");
  bool torch = modules.contains("torch") && !modules["torch"].is_none();
  py::object like = py::module_::import(torch ? "torch" : "numpy").attr("empty")(0);
  Tensor prototype;
  prototype.borrow(like.ptr());
  int64_t shape[] = {v.gated ? 2 * v.n : v.n, v.k};
  NewTensor out = empty(prototype, shape, DType::f32);
  {
    py::gil_scoped_release released;
    weight.unpack(out.view.as<float>());
  }
  return out.object;
}

}  // namespace

void bind_quantize_weight(py::module_& m) {
  py::classh<PackedWeight>(m, "PackedWeight", "A weight in the layout of the linear kernels.")
      .def_property_readonly("kind", [](const PackedWeight& w) { return name_of(w.view().kind); })
      .def_property_readonly("out_features", [](const PackedWeight& w) { return w.view().n; })
      .def_property_readonly("in_features", [](const PackedWeight& w) { return w.view().k; })
      .def_property_readonly("group",
                             [](const PackedWeight& w) {
                               int group = w.view().group;
                               return group < kLongestGroup ? std::optional(group) : std::nullopt;
                             })
      .def_property_readonly(
          "rows", [](const PackedWeight& w) { return rounds_rows(w.view()) ? "int8" : "float"; })
      .def_property_readonly("gated", [](const PackedWeight& w) { return w.view().gated; })
      .def_property_readonly("nbytes", &PackedWeight::bytes)
      .def("unpack", &unpack, "The f32 matrix that the kernels multiply with.");
  m.def("pack_weight", &pack_weight, "Packs weights one below the other, or gate and up woven.",
        py::arg("weights"), py::arg("kind"), py::arg("group") = 32, py::arg("biases") = py::none(),
        py::arg("interleave") = false, py::arg("importance") = py::none(),
        py::arg("rows") = "int8");
  bind_packed_file(m);
}

}  // namespace honed::bindings
