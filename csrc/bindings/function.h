// One function of tensors for both callers: Python (honed._core.<name>, positional arguments) and
// torch's dispatcher (torch.ops.honed.<name>).
//
//   auto twice(Results& results, const TensorView& x, const TensorView* bias, double by) {
//     TensorView y = results.make_like(x);  // checks and new tensors first ...
//     return [=] { work(y, x, bias, by); };  // ... then the work, without Python's lock
//   }
//   define<twice>(m, "twice(Tensor x, Tensor? bias, float by) -> Tensor");
//
// Arguments: const TensorView& (Tensor), const TensorView* (Tensor?), double (float), int64_t (int),
// bool. Several results: "-> (Tensor, Tensor)". _core.direct_<name> is the same where a kernel
// takes the tensors (as _core.answers() says) and no gradient is wanted, and None where not.
#pragma once
#include <array>
#include <string>
#include <tuple>

#include "bindings/native.h"
#include "bindings/tape.h"
#include "bindings/tensor.h"
#include "bindings/torch_library.h"
#include "core/check.h"

namespace honed::bindings {

// An argument from Python: take() says whether it fits, perhaps with a Python error; get() reads it.
template <class T>
struct FromPython;
template <>
struct FromPython<double> {
  double value;
  bool take(PyObject* object) {
    value = PyFloat_AsDouble(object);
    return value != -1 || !PyErr_Occurred();
  }
  double get() const { return value; }
};
template <>
struct FromPython<int64_t> {
  int64_t value;
  bool take(PyObject* object) {
    value = PyLong_AsLongLong(object);
    return value != -1 || !PyErr_Occurred();
  }
  int64_t get() const { return value; }
};
template <>
struct FromPython<bool> {
  bool value;
  bool take(PyObject* object) {
    value = object == Py_True;
    return value || object == Py_False;
  }
  bool get() const { return value; }
};
template <>
struct FromPython<const TensorView&> {
  Tensor tensor;
  bool take(PyObject* object) {
    return tensor.object() || (object != Py_None && tensor.borrow(object));
  }
  const TensorView& get() const { return tensor.view(); }
};
template <>
struct FromPython<const TensorView*> {
  Tensor tensor;
  bool take(PyObject* object) {
    return object == Py_None || tensor.object() || tensor.borrow(object);
  }
  const TensorView* get() const { return tensor.object() ? &tensor.view() : nullptr; }
};
template <class T>
const Tensor* tensor_of(const FromPython<T>& argument) {
  if constexpr (requires { argument.tensor; })
    return argument.tensor.object() ? &argument.tensor : nullptr;
  else
    return nullptr;
}

class PythonResults : public Results {
 public:
  explicit PythonResults(const Tensor& like) : like_(like) {}
  TensorView make(std::span<const int64_t> shape, DType dtype) override;
  TensorView make_in_order(const TensorView& like, const int* order) override;
  void skip() override;
  void write_down(Tape& tape) const;  // as made by its next step
  PyObject* give();

 private:
  const Tensor& like_;
  std::array<py::object, 8> made_;
  std::array<TensorView, 8> views_;
  size_t count_ = 0;
};

// Calls on fewer elements in all keep Python's lock: giving it up and taking it again costs more.
inline constexpr int64_t kWithLock = 4096;

// The entry points of one body, and what they say of themselves.
template <auto body>
struct Defined {
  static inline std::string name, direct;
  static inline const char* schema;

  template <class R, class... Args, size_t... at>
  static void write_down(Tape& tape, R (*)(Results&, Args...),
                         const std::tuple<FromPython<Args>...>& given, PyObject* const* args,
                         const PythonResults& results, std::index_sequence<at...>) {
    std::tuple<Kept<Args>...> kept{Kept<Args>(tape, std::get<at>(given).get(), args[at])...};
    results.write_down(tape);
    tape.step([kept](Results& made, const TensorView* values) {
      body(made, std::get<at>(kept).get(values)...)();
    });
  }

  template <bool asks, class R, class... Args, size_t... at>
  static PyObject* run(R (*function)(Results&, Args...), PyObject* const* args, Py_ssize_t count,
                       std::index_sequence<at...> all) {
    try {
      HONED_CHECK_TYPE(count == sizeof...(Args), name, ": got ", count, " arguments, expected ",
                       schema);
      std::tuple<FromPython<Args>...> given;
      if constexpr (asks) {
        Question question;
        auto ask = [&](auto& argument, PyObject* object) {
          if constexpr (requires { argument.tensor; })
            if (object != Py_None) question.ask(object, argument.tensor);
        };
        (ask(std::get<at>(given), args[at]), ...);
        Answer answer = question.answer();
        if (answer == kError) return nullptr;
        if (answer != kYes) Py_RETURN_NONE;
      }
      const Tensor* first = nullptr;
      int64_t elements = 0;
      auto take = [&](auto& argument, PyObject* object, size_t place) {
        if (!argument.take(object)) {
          if (PyErr_Occurred()) throw_python_error();
          raise<TypeError>(name, ": argument ", place + 1, " is a ", Py_TYPE(object)->tp_name,
                           ", expected ", schema);
        }
        const Tensor* tensor = tensor_of(argument);
        if (!tensor) return;
        if (!first) first = tensor;
        elements += tensor->view().numel();
        require_cpu(name.c_str(), {tensor});
      };
      (take(std::get<at>(given), args[at], at), ...);
      PythonResults results(*first);
      {
        auto work = body(results, std::get<at>(given).get()...);
        Unlocked unlocked(elements > kWithLock);
        work();
      }
      if (Tape* tape = Tape::current()) write_down(*tape, function, given, args, results, all);
      return results.give();
    } catch (...) {
      set_python_error();
      return nullptr;
    }
  }
  template <bool asks>
  static PyObject* call(PyObject*, PyObject* const* args, Py_ssize_t count) {
    return run<asks>(+body, args, count, places(+body));
  }
};

// The entry points for Python alone.
template <auto body>
void define_for_python(py::module_& m, const char* schema) {
  using D = Defined<body>;
  D::schema = schema;
  D::name.assign(schema, std::strchr(schema, '('));
  D::direct = "direct_" + D::name;
  static PyMethodDef methods[] = {
      {D::name.c_str(), as_method(D::template call<false>), METH_FASTCALL, schema},
      {D::direct.c_str(), as_method(D::template call<true>), METH_FASTCALL, schema},
      {nullptr, nullptr, 0, nullptr}};
  add_methods(m, methods);
}

template <auto body>
void define(py::module_& m, const char* schema) {
  static const TorchOp op{schema, boxed<body>};
  define_for_python<body>(m, schema);
}

}  // namespace honed::bindings
