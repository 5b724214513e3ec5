// Python tensors in and out: torch by the DLPack C exchange API (70 ns a borrowed view), NumPy by
// the buffer protocol, anything else by __dlpack__.
#pragma once
#include <pybind11/pytypes.h>

#include <initializer_list>
#include <optional>
#include <span>

#include "bindings/dlpack.h"
#include "core/tensor_view.h"

// All of pybind11.h costs each file that includes it 5 s of compiling, used or not.
PYBIND11_NAMESPACE_BEGIN(PYBIND11_NAMESPACE)
class module_;
PYBIND11_NAMESPACE_END(PYBIND11_NAMESPACE)

namespace honed::bindings {

namespace py = pybind11;

// An argument of a bound function. Valid during the call: it borrows what the caller holds.
class Tensor {
 public:
  Tensor() = default;
  Tensor(Tensor&& other) noexcept;
  Tensor& operator=(Tensor&& other) noexcept;
  ~Tensor();

  // False where the object is no tensor. Throws ValueError or TypeError where it is one that cannot
  // be read: no data (fake, meta), over 8 dimensions, an element type that honed has no name for.
  bool borrow(PyObject* object);

  const TensorView& view() const { return view_; }
  const TensorView* operator->() const { return &view_; }
  PyObject* object() const { return object_; }

 private:
  void from_dlpack(const dlpack::Tensor& tensor, bool readonly);
  bool from_buffer(PyObject* object);
  bool from_capsule(PyObject* object);

  TensorView view_;
  PyObject* object_ = nullptr;  // borrowed
  std::optional<Py_buffer> buffer_;
  py::object capsule_;
};

using OptionalTensor = std::optional<Tensor>;

// A new contiguous tensor of the framework that `like` is of, and its view.
struct NewTensor {
  py::object object;
  TensorView view;
};
NewTensor empty(const Tensor& like, std::span<const int64_t> shape, DType dtype);
// A tensor of that shape and type, contiguous in that order of dimensions, slowest first; false where
// the framework has no quick way.
bool empty_in_order(const Tensor& like, const TensorView& shape, const int* order, NewTensor* made);
NewTensor empty_like(const Tensor& like);  // same shape and element type, contiguous

// The CPU memory of a tensor; a tensor on another device is refused by name.
void require_cpu(const char* op, std::initializer_list<const Tensor*> tensors);

// The same memory as rows: (everything but the last dimension, last dimension). The last dimension
// gets unit stride and the others are flattened; where the strides do not allow it, the elements
// are copied (kept alive by the result).
class Rows {
 public:
  explicit Rows(const TensorView& tensor);
  ~Rows();
  Rows(const Rows&) = delete;
  Rows& operator=(const Rows&) = delete;
  const TensorView& view() const { return view_; }

 private:
  TensorView view_;
  void* copy_ = nullptr;
};

// The same tensor with contiguous elements: borrowed where it is so already, copied where not.
// Of an absent tensor: absent.
class Dense {
 public:
  explicit Dense(const TensorView& tensor);
  explicit Dense(const OptionalTensor& tensor);
  explicit Dense(const TensorView* tensor);
  ~Dense();
  Dense(const Dense&) = delete;
  Dense& operator=(const Dense&) = delete;
  const TensorView* view() const { return present_ ? &view_ : nullptr; }

 private:
  void take(const TensorView& tensor);
  TensorView view_;
  bool present_ = false;
  void* copy_ = nullptr;
};

}  // namespace honed::bindings
