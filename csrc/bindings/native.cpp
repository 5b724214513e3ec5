// honed._core.takes: whether the kernels can have these tensors. Asked before every op, so it is
// short.
#include "bindings/native.h"

#include "bindings/tensor.h"
#include "core/dtype.h"

namespace honed::bindings {

namespace {

// torch.Tensor, torch.nn.Parameter, and what is asked of them; null without torch. Kept for good.
struct Torch {
  PyObject *tensor, *parameter, *requires_grad, *is_neg, *is_grad_enabled, *tracing_state;
} known = {};

bool is_plain(PyObject* object) {
  PyObject* type = reinterpret_cast<PyObject*>(Py_TYPE(object));
  return type == known.tensor || type == known.parameter;
}

// What a callable of no argument or one says: 1 is True, 0 anything else, -1 an error.
int ask(PyObject* function, PyObject* object) {
  PyObject* answer = object ? PyObject_CallOneArg(function, object) : PyObject_CallNoArgs(function);
  if (!answer) return -1;
  Py_DECREF(answer);
  return answer == Py_True;
}

// 1: yes, 0: no, -1: an error.
int kernel_takes(PyObject* object) {
  if (!is_plain(object)) return 0;
  Tensor tensor;
  try {
    tensor.borrow(object);
  } catch (const std::exception&) {  // no memory of its own, an element type without a name
    return 0;
  }
  if (!is_float(tensor->dtype) || tensor->device != Device::cpu) return 0;
  auto* flag = reinterpret_cast<PyGetSetDescrObject*>(known.requires_grad)->d_getset;
  PyObject* tracked = flag->get(object, flag->closure);
  if (!tracked) return -1;
  Py_DECREF(tracked);
  if (tracked == Py_True)
    if (int on = ask(known.is_grad_enabled, nullptr)) return on < 0 ? on : 0;
  int negated = ask(known.is_neg, object);
  return negated < 0 ? negated : !negated;
}

PyObject* takes(PyObject*, PyObject* const* args, Py_ssize_t count) {
  while (count && *args == Py_None) ++args, --count;
  if (!count || !known.tensor) Py_RETURN_TRUE;
  if (!is_plain(*args)) {
    int other = PyObject_IsInstance(*args, known.tensor);
    return other < 0 ? nullptr : PyBool_FromLong(!other);
  }
  for (Py_ssize_t i = 0; i < count; ++i) {
    if (args[i] == Py_None) continue;
    int yes = kernel_takes(args[i]);
    if (yes < 0) return nullptr;
    if (!yes) Py_RETURN_FALSE;
  }
  // torch.jit.trace would record the result as a constant.
  PyObject* tracing = PyObject_CallNoArgs(known.tracing_state);
  if (!tracing) return nullptr;
  Py_DECREF(tracing);
  return PyBool_FromLong(tracing == Py_None);
}

PyMethodDef methods[] = {
    {"takes", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(takes)), METH_FASTCALL,
     "takes(*tensors): plain CPU tensors of float32, float16 or bfloat16, none of which needs a "
     "gradient now. "
     "None is passed over. True where the first is no torch tensor."},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

void bind_native(py::module_& m) {
  PyModule_AddFunctions(m.ptr(), methods);
  m.def(
      "set_torch",
      [](py::object torch) {
        auto keep = [](py::object object) { return object.release().ptr(); };
        py::object tensor = torch.attr("Tensor");
        // The getter behind the attribute, without torch.Tensor's overridable property lookup.
        py::object requires_grad =
            torch.attr("_C").attr("TensorBase").attr("__dict__")["requires_grad"];
        if (Py_TYPE(requires_grad.ptr()) != &PyGetSetDescr_Type)
          throw py::type_error("honed: torch.Tensor.requires_grad is no attribute in C any more");
        known = {keep(tensor),
                 keep(torch.attr("nn").attr("Parameter")),
                 keep(requires_grad),
                 keep(tensor.attr("is_neg")),
                 keep(torch.attr("is_grad_enabled")),
                 keep(torch.attr("_C").attr("_get_tracing_state"))};
      },
      "Tells takes() of torch.", py::arg("torch"));
}

}  // namespace honed::bindings
