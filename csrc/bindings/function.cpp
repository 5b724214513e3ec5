// Results for Python: new tensors, several in a tuple.
#include "bindings/function.h"

namespace honed::bindings {

namespace {

py::object owned(PyObject* object) {
  if (!object) throw_python_error();
  return py::reinterpret_steal<py::object>(object);
}

}  // namespace

TensorView PythonResults::make(std::span<const int64_t> shape, DType dtype) {
  NewTensor made = empty(like_, shape, dtype);
  views_[count_] = made.view;
  made_.at(count_++) = std::move(made.object);
  return made.view;
}

TensorView PythonResults::make_in_order(const TensorView& like, const int* order) {
  if (NewTensor quick; empty_in_order(like_, like, order, &quick)) {
    views_[count_] = quick.view;
    made_.at(count_++) = std::move(quick.object);
    return quick.view;
  }
  int64_t shape[kMaxDims];
  py::object back = owned(PyTuple_New(like.ndim));
  for (int i = 0; i < like.ndim; ++i) {
    shape[i] = like.shape[order[i]];
    PyTuple_SET_ITEM(back.ptr(), order[i], owned(PyLong_FromLong(i)).release().ptr());
  }
  TensorView made = make({shape, size_t(like.ndim)}, like.dtype), view = like;
  for (int i = 0; i < like.ndim; ++i) view.strides[order[i]] = made.strides[i];
  view.data = made.data;
  py::object& object = made_[count_ - 1];
  const char* turn = PyObject_HasAttrString(object.ptr(), "permute") ? "permute" : "transpose";
  views_[count_ - 1] = view;
  object = owned(PyObject_CallMethod(object.ptr(), turn, "(O)", back.ptr()));
  return view;
}

void PythonResults::skip() { made_.at(count_++) = py::reinterpret_borrow<py::object>(Py_None); }

void PythonResults::write_down(Tape& tape) const {
  for (size_t i = 0; i < count_; ++i) tape.made(made_[i].ptr(), views_[i]);
}

PyObject* PythonResults::give() {
  if (count_ == 1) return made_[0].release().ptr();
  py::object all = owned(PyTuple_New(Py_ssize_t(count_)));
  for (size_t i = 0; i < count_; ++i)
    PyTuple_SET_ITEM(all.ptr(), Py_ssize_t(i), made_[i].release().ptr());
  return all.release().ptr();
}

}  // namespace honed::bindings
