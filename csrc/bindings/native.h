// The question that every op asks first: whether the kernels can have these tensors.
#pragma once
#include "bindings/tensor.h"

namespace honed::bindings {

// kNeedsGradient: only gradients are in the way. kError: a Python error is set.
enum Answer : int { kError = -1, kNo = 0, kYes = 1, kNeedsGradient = 2 };

// Borrows the operands of a product, the first of them a torch tensor; None is passed over.
Answer borrow_product(PyObject* const* args, Py_ssize_t count, Tensor* tensors);

// Whether a kernel takes some tensors, asked one by one: all real, f64 beside f64 only, or of any
// types. What is no torch tensor runs natively if it comes first.
class Question {
 public:
  explicit Question(bool any_types = false) : any_types_(any_types) {}
  void ask(PyObject* object, Tensor& tensor);  // borrows into tensor
  Answer answer();

 private:
  bool any_types_;
  Answer answer_ = kYes;
  bool first_ = true, torch_ = false, wide_ = false;
};

// Whether this is a plain torch tensor whose elements are those in memory with the other sign.
bool is_negated(PyObject* object);

// What pybind11.h has too, for files that do without it (bindings/tensor.h).
void set_python_error();                 // from the exception in flight
[[noreturn]] void throw_python_error();  // which Python has set
void add_methods(pybind11::module_& m, PyMethodDef* methods);
class Unlocked {  // without Python's lock, if so asked
 public:
  explicit Unlocked(bool asked = true) : state_(asked ? PyEval_SaveThread() : nullptr) {}
  ~Unlocked() {
    if (state_) PyEval_RestoreThread(state_);
  }
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;

 private:
  PyThreadState* state_;
};

using FastMethod = PyObject* (*)(PyObject*, PyObject* const*, Py_ssize_t);
inline PyCFunction as_method(FastMethod function) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

void bind_native(pybind11::module_& m);

}  // namespace honed::bindings
