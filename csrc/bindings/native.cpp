// honed._core.takes, multiplies, fingerprint: whether the kernels can have these tensors, and
// whether a tensor is still what it was. Asked before every op, so they are short.
#include "bindings/native.h"

#include <pybind11/pybind11.h>

#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bindings/tensor.h"
#include "core/check.h"
#include "core/dtype.h"
#include "core/parallel.h"

namespace honed::bindings {

namespace {

// torch.Tensor, torch.nn.Parameter, and what is asked of them; null without torch. Kept for good.
struct Torch {
  PyObject *tensor, *parameter, *requires_grad, *is_neg, *is_grad_enabled, *tracing_state,
      *autocast, *version, *forward_ad, *level;
} known = {};

bool is_plain(PyObject* object) {
  PyObject* type = reinterpret_cast<PyObject*>(Py_TYPE(object));
  return type == known.tensor || type == known.parameter;
}

// What a callable without arguments says: 1 is True, 0 anything else, -1 an error.
int ask(PyObject* function) {
  PyObject* answer = PyObject_CallNoArgs(function);
  if (!answer) return -1;
  Py_DECREF(answer);
  return answer == Py_True;
}

// The attribute of a torch tensor by its getter in C, a new reference; null without an error where
// it has none (inference tensors count no versions).
PyObject* read(PyObject* getter, PyObject* object) {
  auto* found = reinterpret_cast<PyGetSetDescrObject*>(getter)->d_getset;
  PyObject* value = found->get(object, found->closure);
  if (!value) PyErr_Clear();
  return value;
}

// What a method of torch.Tensor without arguments says, by its function in C; as ask().
int ask_method(PyObject* method, PyObject* object) {
  PyObject* answer =
      reinterpret_cast<PyMethodDescrObject*>(method)->d_method->ml_meth(object, nullptr);
  if (!answer) return -1;
  Py_DECREF(answer);
  return answer == Py_True;
}

Answer kernel_takes(PyObject* object, Tensor& tensor) {
  if (!is_plain(object)) return kNo;
  try {
    tensor.borrow(object);
  } catch (const std::exception&) {  // no memory of its own, an element type without a name
    return kNo;
  }
  if (tensor->device != Device::cpu) return kNo;
  PyObject* tracked = read(known.requires_grad, object);
  if (!tracked) return kNo;
  Py_DECREF(tracked);
  int negated = ask_method(known.is_neg, object);
  if (negated) return negated < 0 ? kError : kNo;
  if (tracked == Py_True)
    if (int on = ask(known.is_grad_enabled)) return on < 0 ? kError : kNeedsGradient;
  return kYes;
}

// 1 where torch has to see the op: torch.jit.trace would record the result as a constant, and inside
// a level of torch.autograd.forward_ad a tensor may have a tangent, which a kernel would drop.
int is_watched() {
  PyObject* level = PyDict_GetItemWithError(known.forward_ad, known.level);  // borrowed
  long depth = level ? PyLong_AsLong(level) : -1;
  if (depth >= 0) return 1;
  if (PyErr_Occurred()) return kError;
  PyObject* tracing = PyObject_CallNoArgs(known.tracing_state);
  if (!tracing) return kError;
  Py_DECREF(tracing);
  return tracing != Py_None;
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
    Tensor tensor;
    Answer yes = kernel_takes(args[i], tensor);
    if (yes == kError) return nullptr;
    if (yes != kYes || !is_float(tensor->dtype)) Py_RETURN_FALSE;
  }
  int watched = is_watched();
  return watched < 0 ? nullptr : PyBool_FromLong(!watched);
}

// As takes(), with gradients; f64 beside f64 only, or any element types.
template <bool any_types>
PyObject* answers(PyObject*, PyObject* const* args, Py_ssize_t count) {
  Question question(any_types);
  for (Py_ssize_t i = 0; i < count; ++i) {
    if (args[i] == Py_None) continue;
    Tensor tensor;
    question.ask(args[i], tensor);
  }
  Answer answer = question.answer();
  return answer == kError ? nullptr : PyLong_FromLong(answer);
}

constexpr Py_ssize_t kMaxOperands = 8;

PyObject* multiplies(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!count || !known.tensor) return PyLong_FromLong(kYes);
  if (!is_plain(*args)) {
    int other = PyObject_IsInstance(*args, known.tensor);
    return other < 0 ? nullptr : PyLong_FromLong(other ? kNo : kYes);
  }
  Tensor tensors[kMaxOperands];
  if (count > kMaxOperands) return PyLong_FromLong(kNo);
  Answer answer = borrow_product(args, count, tensors);
  return answer == kError ? nullptr : PyLong_FromLong(answer);
}

constexpr uint64_t kSamples = 64;  // a tensor

uint64_t mix(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9e3779b97f4a7c15u;
  return hash ^ (hash >> 29);
}

// Places spread over `total` elements: an odd step times a fraction of the golden ratio, so that they
// lie in all rows and columns.
uint64_t place_of(uint64_t sample, uint64_t count, uint64_t total) {
  if (count == total) return sample;
  return uint64_t((unsigned __int128)(sample * 0x9e3779b97f4a7c15u) * total >> 64);
}

// In four chains, which do not wait for each other.
template <class T>
uint64_t hash_samples(const T* from, uint64_t count, uint64_t total, uint64_t hash) {
  uint64_t chain[4] = {hash, 1, 2, 3}, i = 0;
  for (; i + 4 <= count; i += 4)
    for (uint64_t c = 0; c < 4; ++c) chain[c] = mix(chain[c], from[place_of(i + c, count, total)]);
  for (; i < count; ++i) chain[0] = mix(chain[0], from[place_of(i, count, total)]);
  return mix(mix(chain[0], chain[1]), mix(chain[2], chain[3]));
}

// A hash of some values spread over a tensor.
uint64_t values_of(const TensorView& t, uint64_t hash) {
  uint64_t total = uint64_t(t.numel());
  if (!total || t.device != Device::cpu) return hash;
  uint64_t count = total < kSamples ? total : kSamples;
  int64_t size = size_of(t.dtype);
  // Without gaps, in whatever order: places in memory say as much as indices, and need no divisions.
  int64_t last = 0;
  bool forward = true;
  for (int d = 0; d < t.ndim; ++d) {
    last += (t.shape[d] - 1) * t.strides[d];
    forward = forward && t.strides[d] > 0;
  }
  const bool dense = forward && last + 1 == int64_t(total);
  if (dense && size == 4) return hash_samples(t.as<uint32_t>(), count, total, hash);
  if (dense && size == 2) return hash_samples(t.as<uint16_t>(), count, total, hash);
  for (uint64_t i = 0; i < count; ++i) {
    uint64_t at = place_of(i, count, total);
    int64_t offset = int64_t(at);
    if (!dense) {
      offset = 0;
      for (int d = t.ndim - 1; d >= 0; --d) {
        offset += int64_t(at % uint64_t(t.shape[d])) * t.strides[d];
        at /= uint64_t(t.shape[d]);
      }
    }
    uint64_t bits = 0;
    std::memcpy(&bits, t.as<char>() + offset * size, size_t(size));
    hash = mix(hash, bits);
  }
  return hash;
}

// Where a tensor lies, its type, shape and strides.
uint64_t place_of(const TensorView& t, uint64_t hash) {
  hash = mix(hash, reinterpret_cast<uintptr_t>(t.data));
  hash = mix(hash, uint64_t(t.dtype));
  for (int i = 0; i < t.ndim; ++i)
    hash = mix(mix(hash, uint64_t(t.shape[i])), uint64_t(t.strides[i]));
  return hash;
}

PyObject* fingerprint(PyObject*, PyObject* const* args, Py_ssize_t count) {
  constexpr Py_ssize_t kMany = 32;  // whose values, far apart in memory, threads share
  uint64_t hash = uint64_t(count);
  std::vector<TensorView> many;
  for (Py_ssize_t i = 0; i < count; ++i) {
    if (args[i] == Py_None) {
      hash = mix(hash, 1);
      continue;
    }
    Tensor tensor;
    hash = mix(hash, reinterpret_cast<uintptr_t>(args[i]));
    try {
      if (!tensor.borrow(args[i])) {
        PyErr_SetString(PyExc_TypeError, "fingerprint: got what is no tensor, expected a tensor");
        return nullptr;
      }
      hash = place_of(tensor.view(), hash);
      if (count < kMany)
        hash = values_of(tensor.view(), hash);
      else
        many.push_back(tensor.view());
    } catch (const std::exception&) {  // no memory of its own (meta): which tensor it is says all
    }
    if (is_plain(args[i]))
      if (PyObject* version = read(known.version, args[i])) {
        hash = mix(hash, uint64_t(PyLong_AsUnsignedLongLong(version)));
        Py_DECREF(version);
      }
  }
  std::vector<uint64_t> values(many.size());
  parallel_for(int64_t(many.size()), 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) values[size_t(i)] = values_of(many[size_t(i)], 0);
  });
  for (uint64_t each : values) hash = mix(hash, each);
  return PyLong_FromUnsignedLongLong(hash);
}

PyMethodDef methods[] = {
    {"takes", as_method(takes), METH_FASTCALL,
     "takes(*tensors): plain CPU tensors of float32, float16 or bfloat16, none of which needs a "
     "gradient now. "
     "None is passed over. True where the first is no torch tensor."},
    {"reads", as_method(answers<true>), METH_FASTCALL,
     "reads(*tensors): as answers(), of tensors of any element types."},
    {"answers", as_method(answers<false>), METH_FASTCALL,
     "answers(*tensors): 1 where a kernel takes these tensors (as takes(), and float64 if all "
     "are), 2 "
     "where only a gradient is in the way, else 0."},
    {"multiplies", as_method(multiplies), METH_FASTCALL,
     "multiplies(*tensors): 1 where a product takes these tensors (as takes(), but of one type, "
     "float64 too, and without autocast), 2 where only a gradient is in the way, else 0."},
    {"fingerprint", as_method(fingerprint), METH_FASTCALL,
     "fingerprint(*tensors): a hash of which tensors these are, where they lie, their types and "
     "shapes, how often they were written to, and 64 values of each, for edits that leave no other "
     "trace."},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

void Question::ask(PyObject* object, Tensor& tensor) {
  if (first_ && known.tensor) {
    torch_ = is_plain(object);
    if (!torch_)
      if (int other = PyObject_IsInstance(object, known.tensor)) answer_ = other < 0 ? kError : kNo;
  }
  bool first = std::exchange(first_, false);
  if (!torch_ || answer_ == kNo || answer_ == kError) return;
  Answer yes = kernel_takes(object, tensor);
  if (!any_types_ && (yes == kYes || yes == kNeedsGradient)) {
    bool wide = tensor->dtype == DType::f64;
    if (first) wide_ = wide;
    if (!is_real(tensor->dtype) || wide != wide_) yes = kNo;
  }
  if (yes != kYes) answer_ = yes;
}

Answer Question::answer() {
  if (!torch_ || answer_ == kNo || answer_ == kError) return answer_;
  int watched = is_watched();
  return watched < 0 ? kError : watched ? kNo : answer_;
}

bool is_negated(PyObject* object) {
  if (!known.tensor || !is_plain(object)) return false;
  int negated = ask_method(known.is_neg, object);
  if (negated < 0) throw py::error_already_set();
  return negated;
}

void set_python_error() {
  try {
    throw;
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const py::builtin_exception& error) {
    error.set_error();
  } catch (const ValueError& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  } catch (const TypeError& error) {
    PyErr_SetString(PyExc_TypeError, error.what());
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::out_of_range& error) {
    PyErr_SetString(PyExc_IndexError, error.what());
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
}

void throw_python_error() { throw py::error_already_set(); }

void add_methods(py::module_& m, PyMethodDef* methods) {
  if (PyModule_AddFunctions(m.ptr(), methods)) throw_python_error();
}

// One element type, f64 too, and no autocast, which would change the type.
Answer borrow_product(PyObject* const* args, Py_ssize_t count, Tensor* tensors) {
  if (!known.tensor) return kNo;
  Answer answer = kYes;
  for (Py_ssize_t i = 0; i < count; ++i) {
    if (args[i] == Py_None) continue;
    Answer yes = kernel_takes(args[i], tensors[i]);
    if (yes == kNo || yes == kError) return yes;
    DType dtype = tensors[i]->dtype;
    if (dtype != tensors[0]->dtype || !(is_float(dtype) || dtype == DType::f64)) return kNo;
    if (yes == kNeedsGradient) answer = yes;
  }
  int watched = is_watched();
  int casting = watched ? 0 : ask(known.autocast);
  if (watched < 0 || casting < 0) return kError;
  return watched || casting ? kNo : answer;
}

void bind_native(py::module_& m) {
  PyModule_AddFunctions(m.ptr(), methods);
  m.def(
      "set_torch",
      [](py::object torch) {
        auto keep = [](py::object object) { return object.release().ptr(); };
        py::object tensor = torch.attr("Tensor");
        // The getter behind the attribute, without torch.Tensor's overridable property lookup.
        auto getter = [&](const char* name) {
          py::object found = torch.attr("_C").attr("TensorBase").attr("__dict__")[name];
          if (Py_TYPE(found.ptr()) != &PyGetSetDescr_Type)
            throw py::type_error(std::string("honed: torch.Tensor.") + name +
                                 " is no attribute in C any more");
          return keep(found);
        };
        py::object is_neg = torch.attr("_C").attr("TensorBase").attr("__dict__")["is_neg"];
        if (Py_TYPE(is_neg.ptr()) != &PyMethodDescr_Type ||
            reinterpret_cast<PyMethodDescrObject*>(is_neg.ptr())->d_method->ml_flags != METH_NOARGS)
          throw py::type_error("honed: torch.Tensor.is_neg is no method in C any more");
        known = {keep(tensor),
                 keep(torch.attr("nn").attr("Parameter")),
                 getter("requires_grad"),
                 keep(is_neg),
                 keep(torch.attr("is_grad_enabled")),
                 keep(torch.attr("_C").attr("_get_tracing_state")),
                 keep(py::getattr(torch.attr("_C"), "_is_any_autocast_enabled",
                                  torch.attr("is_autocast_enabled"))),
                 getter("_version"),
                 keep(torch.attr("autograd").attr("forward_ad").attr("__dict__")),
                 PyUnicode_InternFromString("_current_level")};
      },
      "Tells takes() of torch.", py::arg("torch"));
}

}  // namespace honed::bindings
