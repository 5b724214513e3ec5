// honed._core.adamw_step: on lists of tensors, so no function of torch's registry.
#include "ops/adamw_step.h"

#include <pybind11/stl.h>

#include <variant>
#include <vector>

#include "bindings/caster.h"
#include "bindings/native.h"
#include "core/check.h"

namespace honed::bindings {

namespace {

using Tensors = std::vector<Tensor>;

// Tensors of a list, which keeps them; none of None.
Tensors take(const char* what, const std::optional<py::list>& list, size_t expected) {
  Tensors tensors;
  if (!list) return tensors;
  HONED_CHECK(list->size() == expected, "adamw_step: ", list->size(), " ", what, " beside ",
              expected, " params, expected as many");
  tensors.reserve(expected);
  for (size_t i = 0; i < expected; ++i) {
    Tensor tensor;
    HONED_CHECK_TYPE(tensor.borrow(PyList_GET_ITEM(list->ptr(), Py_ssize_t(i))),
                     "adamw_step: ", what, " ", i, " is no tensor, expected one");
    require_cpu("adamw_step", {&tensor});
    HONED_CHECK(!is_negated(tensor.object()), "adamw_step: ", what, " ", i,
                " is a negated view, expected memory that holds its values");
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

void run(const py::list& params, const py::list& grads, const py::list& exp_avgs,
         const py::list& exp_avg_sqs, const std::optional<py::list>& max_exp_avg_sqs,
         const std::optional<py::list>& masters, const std::variant<double, py::list>& step,
         double lr, double beta1, double beta2, double eps, double weight_decay, bool maximize,
         double grad_scale) {
  const size_t count = params.size();
  Tensors p = take("params", params, count), g = take("grads", grads, count),
          m = take("exp_avgs", exp_avgs, count), v = take("exp_avg_sqs", exp_avg_sqs, count),
          u = take("max_exp_avg_sqs", max_exp_avg_sqs, count), w = take("master", masters, count),
          steps;
  const bool counts = std::holds_alternative<py::list>(step);
  if (counts) steps = take("step", std::get<py::list>(step), count);
  const double number = counts ? 0 : std::get<double>(step);
  std::vector<AdamwParameter> parameters;
  parameters.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    double t = number;
    if (counts) {
      const TensorView& view = steps[i].view();
      HONED_CHECK(view.numel() == 1 && (view.dtype == DType::f32 || view.dtype == DType::f64) &&
                      !view.readonly,
                  "adamw_step: step ", i, " is ", name_of(view.dtype), " of shape ", shape_of(view),
                  ", expected one float32 or float64 number");
      t = 1 + (view.dtype == DType::f32 ? double(*view.as<float>()) : *view.as<double>());
    }
    parameters.push_back({p[i].view(), g[i].view(), m[i].view(), v[i].view(),
                          u.empty() ? nullptr : &u[i].view(), w.empty() ? nullptr : &w[i].view(),
                          t});
  }
  {
    py::gil_scoped_release released;
    adamw_step(parameters, {lr, beta1, beta2, eps, weight_decay, grad_scale, maximize});
  }
  for (const Tensor& each : steps) {  // done: counted
    const TensorView& view = each.view();
    if (view.dtype == DType::f32)
      *view.as<float>() += 1;
    else
      *view.as<double>() += 1;
  }
}

}  // namespace

void bind_adamw_step(py::module_& m) {
  m.def("adamw_step", &run, "One step of AdamW over lists of tensors, in place.", py::arg("params"),
        py::arg("grads"), py::arg("exp_avgs"), py::arg("exp_avg_sqs"), py::arg("max_exp_avg_sqs"),
        py::arg("master"), py::arg("step"), py::arg("lr"), py::arg("beta1"), py::arg("beta2"),
        py::arg("eps"), py::arg("weight_decay"), py::arg("maximize"), py::arg("grad_scale"));
}

}  // namespace honed::bindings
