// The three ways in, the two ways out.
#include "bindings/tensor.h"

#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "bindings/huge_pages.h"
#include "core/arena.h"
#include "core/check.h"

namespace honed::bindings {

namespace {

// The exchange API of a tensor type, or nullptr. The few types seen are remembered; the GIL guards.
const dlpack::ExchangeApi* exchange_api(PyTypeObject* type) {
  struct Seen {
    PyTypeObject* type;
    const dlpack::ExchangeApi* api;
  };
  static Seen seen[16];
  static int count = 0;
  for (int i = 0; i < count; ++i)
    if (seen[i].type == type) return seen[i].api;
  static PyObject* name = PyUnicode_InternFromString("__dlpack_c_exchange_api__");
  const dlpack::ExchangeApi* api = nullptr;
  if (PyObject* capsule = PyObject_GetAttr(reinterpret_cast<PyObject*>(type), name)) {
    api = static_cast<const dlpack::ExchangeApi*>(
        PyCapsule_GetPointer(capsule, "dlpack_exchange_api"));
    Py_DECREF(capsule);
    if (!api) PyErr_Clear();
    while (api && api->version.major != 1) api = api->previous;
  } else {
    PyErr_Clear();
  }
  if (count < 16) {
    Py_INCREF(type);
    seen[count++] = {type, api};
  }
  return api;
}

std::string type_name(PyObject* object) { return Py_TYPE(object)->tp_name; }

DType dtype_of(const dlpack::DataType& type, PyObject* object) {
  using namespace dlpack;
  if (type.lanes == 1) {
    if (type.code == kFloat && type.bits == 64) return DType::f64;
    if (type.code == kFloat && type.bits == 32) return DType::f32;
    if (type.code == kFloat && type.bits == 16) return DType::f16;
    if (type.code == kBfloat && type.bits == 16) return DType::bf16;
    if (type.code == kInt && type.bits == 64) return DType::i64;
    if (type.code == kInt && type.bits == 32) return DType::i32;
    if (type.code == kInt && type.bits == 16) return DType::i16;
    if (type.code == kInt && type.bits == 8) return DType::i8;
    if (type.code == kUInt && type.bits == 8) return DType::u8;
    if (type.code == kBool && type.bits == 8) return DType::boolean;
  }
  raise<TypeError>("honed: a ", type_name(object), " has an element type (DLPack code ",
                   int(type.code), ", ", int(type.bits),
                   " bits) that honed does not take; expected a real floating, integer or bool "
                   "type");
}

dlpack::DataType type_of(DType dtype) {
  using namespace dlpack;
  uint8_t bits = uint8_t(8 * size_of(dtype));
  switch (dtype) {
    case DType::f64:
    case DType::f32:
    case DType::f16:
      return {kFloat, bits, 1};
    case DType::bf16:
      return {kBfloat, bits, 1};
    case DType::u8:
      return {kUInt, bits, 1};
    case DType::boolean:
      return {kBool, bits, 1};
    default:
      return {kInt, bits, 1};
  }
}

bool dtype_of_buffer(const char* format, int64_t size, DType* out) {
  char kind = format && *format ? format[*format == '@' || *format == '=' || *format == '<'] : 'B';
  switch (kind) {
    case 'd':
      *out = DType::f64;
      return true;
    case 'f':
      *out = DType::f32;
      return true;
    case 'e':
      *out = DType::f16;
      return true;
    case 'b':
      *out = DType::i8;
      return true;
    case 'B':
      *out = DType::u8;
      return true;
    case '?':
      *out = DType::boolean;
      return true;
    case 'h':
      *out = DType::i16;
      return true;
    case 'i':
    case 'l':
    case 'q':
      *out = size == 8 ? DType::i64 : DType::i32;
      return size == 8 || size == 4;
    default:
      return false;
  }
}

void set_strides(TensorView* view, const int64_t* strides) {
  int64_t step = 1;
  for (int i = view->ndim - 1; i >= 0; --i) {
    view->strides[i] = strides ? strides[i] : step;
    step *= view->shape[i];
  }
}

}  // namespace

Tensor::Tensor(Tensor&& other) noexcept { *this = std::move(other); }

Tensor& Tensor::operator=(Tensor&& other) noexcept {
  std::swap(view_, other.view_);
  std::swap(object_, other.object_);
  std::swap(buffer_, other.buffer_);
  std::swap(capsule_, other.capsule_);
  return *this;
}

Tensor::~Tensor() {
  if (buffer_) PyBuffer_Release(&*buffer_);
}

bool Tensor::borrow(PyObject* object) {
  object_ = object;
  if (const dlpack::ExchangeApi* api = exchange_api(Py_TYPE(object))) {
    dlpack::Tensor tensor;
    if (api->borrow(object, &tensor) != 0) throw py::error_already_set();
    from_dlpack(tensor, false);
    return true;
  }
  if (PyObject_CheckBuffer(object)) return from_buffer(object);
  return from_capsule(object);
}

void Tensor::from_dlpack(const dlpack::Tensor& tensor, bool readonly) {
  HONED_CHECK(tensor.ndim <= kMaxDims, "honed: a ", type_name(object_), " has ", tensor.ndim,
              " dimensions, expected at most ", kMaxDims);
  view_.ndim = tensor.ndim;
  for (int i = 0; i < tensor.ndim; ++i) view_.shape[i] = tensor.shape[i];
  set_strides(&view_, tensor.strides);
  view_.dtype = dtype_of(tensor.dtype, object_);
  view_.readonly = readonly;
  view_.device = tensor.device.type == dlpack::kCuda ? Device::cuda : Device::cpu;
  HONED_CHECK(tensor.device.type >= dlpack::kCpu && tensor.device.type <= dlpack::kCudaHost,
              "honed: a ", type_name(object_), " is on a device (DLPack type ", tensor.device.type,
              ") that honed does not have, expected cpu or cuda");
  HONED_CHECK(tensor.data || view_.numel() == 0, "honed: a ", type_name(object_), " of shape ",
              shape_of(view_),
              " has no data (a fake, meta or distributed tensor), expected a tensor in memory");
  view_.data = static_cast<char*>(tensor.data) + tensor.byte_offset;
}

bool Tensor::from_buffer(PyObject* object) {
  buffer_.emplace();
  if (PyObject_GetBuffer(object, &*buffer_, PyBUF_STRIDES | PyBUF_FORMAT) != 0) {
    buffer_.reset();
    PyErr_Clear();
    return false;
  }
  const Py_buffer& b = *buffer_;
  HONED_CHECK(b.ndim <= kMaxDims, "honed: an array has ", b.ndim, " dimensions, expected at most ",
              kMaxDims);
  HONED_CHECK_TYPE(dtype_of_buffer(b.format, b.itemsize, &view_.dtype),
                   "honed: an array has the element type '", b.format ? b.format : "?",
                   "', expected a native real floating, integer or bool type");
  view_.ndim = b.ndim;
  view_.data = b.buf;
  view_.readonly = b.readonly;
  for (int i = 0; i < b.ndim; ++i) {
    view_.shape[i] = b.shape[i];
    HONED_CHECK(b.shape[i] < 2 || b.strides[i] % b.itemsize == 0, "honed: an array's stride of ",
                b.strides[i], " bytes is no multiple of its element size ", b.itemsize);
    view_.strides[i] = b.strides[i] / b.itemsize;
  }
  return true;
}

bool Tensor::from_capsule(PyObject* object) {
  py::handle handle(object);
  if (!py::hasattr(handle, "__dlpack__")) return false;
  // torch before 2.10 has no exchange API, and refuses to export what requires a gradient.
  py::object detached;
  if (py::getattr(handle, "requires_grad", py::none()).is(py::bool_(true)))
    handle = detached = handle.attr("detach")();
  py::object method = handle.attr("__dlpack__");
  try {
    capsule_ = method(py::arg("max_version") = py::make_tuple(1, 0));
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_TypeError)) throw;
    capsule_ = method();  // before DLPack 1.0
  }
  // The capsule keeps its unconsumed name, so its own destructor frees it with this argument.
  if (auto* managed = static_cast<dlpack::ManagedVersioned*>(
          PyCapsule_GetPointer(capsule_.ptr(), "dltensor_versioned"))) {
    from_dlpack(managed->tensor, managed->flags & dlpack::kReadOnly);
    return true;
  }
  PyErr_Clear();
  auto* managed = static_cast<dlpack::Managed*>(PyCapsule_GetPointer(capsule_.ptr(), "dltensor"));
  if (!managed) throw py::error_already_set();
  from_dlpack(managed->tensor, false);
  return true;
}

namespace {

// A new tensor as `made` describes it, without gaps; false where its framework has no exchange API.
bool allocate(const Tensor& like, NewTensor& made) {
  const dlpack::ExchangeApi* api = exchange_api(Py_TYPE(like.object()));
  if (!api) return false;
  TensorView& view = made.view;
  dlpack::Tensor prototype{nullptr,    {dlpack::kCpu, 0}, view.ndim, type_of(view.dtype),
                           view.shape, nullptr,           0};
  dlpack::ManagedVersioned* managed = nullptr;
  std::string message;
  auto set_error = [](void* text, const char*, const char* what) {
    *static_cast<std::string*>(text) = what;
  };
  if (api->allocate(&prototype, &managed, &message, set_error) != 0)
    throw std::runtime_error("honed: cannot allocate a tensor: " + message);
  view.data = static_cast<char*>(managed->tensor.data) + managed->tensor.byte_offset;
  ask_huge_pages(view.data, view.numel() * size_of(view.dtype));
  managed->tensor.strides = view.strides;  // which the object copies
  void* object = nullptr;
  if (api->to_object(managed, &object) != 0) throw py::error_already_set();
  made.object = py::reinterpret_steal<py::object>(static_cast<PyObject*>(object));
  return true;
}

}  // namespace

bool empty_in_order(const Tensor& like, const TensorView& shape, const int* order,
                    NewTensor* made) {
  made->view = shape;
  int64_t step = 1;
  for (int i = shape.ndim - 1; i >= 0; --i) {
    made->view.strides[order[i]] = step;
    step *= std::max<int64_t>(1, shape.shape[order[i]]);
  }
  return allocate(like, *made);
}

NewTensor empty(const Tensor& like, std::span<const int64_t> shape, DType dtype) {
  NewTensor made;
  made.view.ndim = int(shape.size());
  std::copy(shape.begin(), shape.end(), made.view.shape);
  set_strides(&made.view, nullptr);
  made.view.dtype = dtype;
  if (allocate(like, made)) return made;
  py::tuple dims(made.view.ndim);
  for (int i = 0; i < made.view.ndim; ++i) dims[size_t(i)] = made.view.shape[i];
  bool numpy = PyObject_CheckBuffer(like.object());
  HONED_CHECK_TYPE(!numpy || dtype != DType::bf16, "honed: NumPy has no bfloat16");
  py::module_ library = py::module_::import(numpy ? "numpy" : "torch");
  made.object = library.attr("empty")(
      dims,
      py::arg("dtype") = library.attr(dtype == DType::boolean && numpy ? "bool_" : name_of(dtype)));
  Tensor view;
  view.borrow(made.object.ptr());
  made.view = view.view();
  return made;
}

NewTensor empty_like(const Tensor& like) {
  return empty(like, {like->shape, size_t(like->ndim)}, like->dtype);
}

void require_cpu(const char* op, std::initializer_list<const Tensor*> tensors) {
  for (const Tensor* tensor : tensors)
    HONED_CHECK(!tensor || tensor->view().device == Device::cpu, op,
                ": a tensor is on a CUDA device, and this build has no CUDA kernels; expected a "
                "CPU tensor");
}

namespace {

// True where all but the last dimension have one common step.
bool flattens(const TensorView& t, int64_t* step) {
  *step = t.ndim > 1 ? t.stride(-2) : 0;
  int64_t expected = 0;
  bool first = true;
  for (int i = t.ndim - 2; i >= 0; --i) {
    if (t.shape[i] == 1) continue;
    if (first) {
      *step = expected = t.strides[i];
      first = false;
    } else if (t.strides[i] != expected) {
      return false;
    }
    expected = t.strides[i] * t.shape[i];
  }
  return true;
}

void copy_strided(const TensorView& t, int dim, const char* from, char** to) {
  int64_t item = size_of(t.dtype);
  bool row = dim == t.ndim - 1 && t.strides[dim] == 1;
  if (row || dim == t.ndim) {
    int64_t bytes = item * (row ? t.shape[dim] : 1);
    std::memcpy(*to, from, size_t(bytes));
    *to += bytes;
    return;
  }
  for (int64_t i = 0; i < t.shape[dim]; ++i)
    copy_strided(t, dim + 1, from + i * t.strides[dim] * item, to);
}

// Caller frees.
void* dense_copy(const TensorView& tensor) {
  HONED_CHECK(tensor.device == Device::cpu,
              "honed: a tensor is on a CUDA device, expected a CPU tensor");
  void* copy = allocate_aligned(tensor.numel() * size_of(tensor.dtype));
  char* to = static_cast<char*>(copy);
  copy_strided(tensor, 0, static_cast<const char*>(tensor.data), &to);
  return copy;
}

}  // namespace

Rows::Rows(const TensorView& tensor) : view_(tensor) {
  int64_t cols = tensor.ndim ? tensor.size(-1) : 1;
  int64_t step = 0;
  bool unit = tensor.ndim == 0 || cols <= 1 || tensor.stride(-1) == 1;
  bool plain = unit && flattens(tensor, &step);
  int64_t total = tensor.numel();
  view_.ndim = 2;
  view_.shape[1] = cols;
  view_.shape[0] = 1;
  for (int i = 0; i + 1 < tensor.ndim; ++i) view_.shape[0] *= tensor.shape[i];
  view_.strides[1] = 1;
  view_.strides[0] = step;
  if (!plain && total > 0) {
    view_.data = copy_ = dense_copy(tensor);
    view_.strides[0] = cols;
  }
}

Rows::~Rows() {
  if (copy_) free_aligned(copy_);
}

Dense::Dense(const TensorView& tensor) { take(tensor); }
Dense::Dense(const OptionalTensor& tensor) {
  if (tensor) take(tensor->view());
}

Dense::Dense(const TensorView* tensor) {
  if (tensor) take(*tensor);
}

void Dense::take(const TensorView& tensor) {
  view_ = tensor;
  present_ = true;
  if (tensor.contiguous()) return;
  view_.data = copy_ = dense_copy(tensor);
  set_strides(&view_, nullptr);
}

Dense::~Dense() {
  if (copy_) free_aligned(copy_);
}

}  // namespace honed::bindings
