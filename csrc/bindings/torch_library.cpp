// honed._core.register_torch_ops
#include "bindings/torch_library.h"

#include <dlfcn.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <iterator>
#include <string>
#include <vector>

#include "bindings/huge_pages.h"
#include "core/check.h"

namespace honed::bindings {

namespace {

namespace py = pybind11;

using Handle = void*;
constexpr int32_t kOk = 0;
constexpr int32_t kCpuDevice = 0;  // c10::DeviceType::CPU

// The shims, by name; every one returns kOk or an error but for the element types.
struct Shims {
  int32_t (*aoti_torch_delete_tensor_object)(Handle);
  int32_t (*aoti_torch_get_data_ptr)(Handle, void**);
  int32_t (*aoti_torch_get_dim)(Handle, int64_t*);
  int32_t (*aoti_torch_get_sizes)(Handle, int64_t**);
  int32_t (*aoti_torch_get_strides)(Handle, int64_t**);
  int32_t (*aoti_torch_get_dtype)(Handle, int32_t*);
  int32_t (*aoti_torch_get_device_type)(Handle, int32_t*);
  int32_t (*aoti_torch_empty_strided)(int64_t, const int64_t*, const int64_t*, int32_t, int32_t,
                                      int32_t, Handle*);
  int32_t (*aoti_torch_library_init_fragment)(const char*, const char*, uint32_t, Handle*);
  int32_t (*aoti_torch_library_init_impl)(const char*, const char*, const char*, uint32_t, Handle*);
  int32_t (*aoti_torch_library_def)(Handle, const char*);
  int32_t (*aoti_torch_library_impl)(Handle, const char*, TorchFunction);
  int32_t (*torch_delete_stable_ivalue)(TorchValue*);  // may be missing: then by delete
  int32_t dtypes[10];                                  // torch's number of each DType
} shims = {};

template <class F>
bool find(void* library, const char* name, F* function) {
  *function = reinterpret_cast<F>(dlsym(library, name));
  return *function != nullptr;
}

bool find_shims() {
  void* library = dlopen("libtorch_cpu.so", RTLD_NOW | RTLD_NOLOAD);
  if (!library) return false;
#define HONED_FIND(name) find(library, #name, &shims.name)
  bool found = HONED_FIND(aoti_torch_delete_tensor_object) && HONED_FIND(aoti_torch_get_data_ptr) &&
               HONED_FIND(aoti_torch_get_dim) && HONED_FIND(aoti_torch_get_sizes) &&
               HONED_FIND(aoti_torch_get_strides) && HONED_FIND(aoti_torch_get_dtype) &&
               HONED_FIND(aoti_torch_get_device_type) && HONED_FIND(aoti_torch_empty_strided) &&
               HONED_FIND(aoti_torch_library_init_fragment) &&
               HONED_FIND(aoti_torch_library_init_impl) && HONED_FIND(aoti_torch_library_def) &&
               HONED_FIND(aoti_torch_library_impl);
  HONED_FIND(torch_delete_stable_ivalue);
#undef HONED_FIND
  const struct {
    DType dtype;
    const char* name;
  } types[] = {{DType::f64, "aoti_torch_dtype_float64"}, {DType::f32, "aoti_torch_dtype_float32"},
               {DType::f16, "aoti_torch_dtype_float16"}, {DType::bf16, "aoti_torch_dtype_bfloat16"},
               {DType::i64, "aoti_torch_dtype_int64"},   {DType::i32, "aoti_torch_dtype_int32"},
               {DType::i16, "aoti_torch_dtype_int16"},   {DType::i8, "aoti_torch_dtype_int8"},
               {DType::u8, "aoti_torch_dtype_uint8"},    {DType::boolean, "aoti_torch_dtype_bool"}};
  for (auto [dtype, name] : types) {
    int32_t (*number)() = nullptr;
    found = found && find(library, name, &number);
    if (found) shims.dtypes[int(dtype)] = number();
  }
  return found;
}

void check(int32_t result, const char* what) {
  if (result != kOk) raise<std::runtime_error>("honed: torch's ", what, " failed");
}

const TorchOp* first = nullptr;

// The names that were registered in a namespace; none where torch lacks a shim.
std::vector<std::string> register_torch_ops(const std::string& name_space) {
  std::vector<std::string> names;
  if (!find_shims()) return names;
  Handle defined, implemented;  // kept: torch forgets the ops of a library that is deleted
  check(shims.aoti_torch_library_init_fragment(name_space.c_str(), __FILE__, __LINE__, &defined),
        "library");
  check(shims.aoti_torch_library_init_impl(name_space.c_str(), "CPU", __FILE__, __LINE__,
                                           &implemented),
        "library");
  for (const TorchOp* op = first; op; op = op->next) {
    std::string name(op->schema, std::strchr(op->schema, '('));
    check(shims.aoti_torch_library_def(defined, op->schema), "library.define");
    check(shims.aoti_torch_library_impl(implemented, name.c_str(), op->function), "library.impl");
    names.push_back(name);
  }
  return names;
}

std::vector<std::string> torch_schemas() {
  std::vector<std::string> schemas;
  for (const TorchOp* op = first; op; op = op->next) schemas.push_back(op->schema);
  return schemas;
}

}  // namespace

TorchOp::TorchOp(const char* schema, TorchFunction function)
    : schema(schema), function(function), next(first) {
  first = this;
}

TorchTensor::~TorchTensor() {
  if (handle_) shims.aoti_torch_delete_tensor_object(handle_);
}

TorchTensor TorchTensor::empty(std::span<const int64_t> shape, DType dtype, const int* order) {
  int64_t strides[kMaxDims];
  int64_t step = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    size_t d = order ? size_t(order[i]) : i;
    strides[d] = step;
    step *= shape[d] > 1 ? shape[d] : 1;
  }
  Handle made = nullptr;
  check(shims.aoti_torch_empty_strided(int64_t(shape.size()), shape.data(), strides,
                                       shims.dtypes[int(dtype)], kCpuDevice, 0, &made),
        "empty_strided");
  void* data = nullptr;
  check(shims.aoti_torch_get_data_ptr(made, &data), "data_ptr");
  ask_huge_pages(data, step * size_of(dtype));
  return TorchTensor(made);
}

TensorView TorchTensor::view() const {
  TensorView view;
  int64_t ndim = 0, *shape = nullptr, *strides = nullptr;
  int32_t dtype = 0, device = 0;
  check(shims.aoti_torch_get_dim(handle_, &ndim), "dim");
  HONED_CHECK(ndim <= kMaxDims, "honed: a tensor has ", ndim, " dimensions, expected at most ",
              kMaxDims);
  check(shims.aoti_torch_get_device_type(handle_, &device), "device");
  HONED_CHECK(device == kCpuDevice, "honed: a tensor is on another device, expected a CPU tensor");
  check(shims.aoti_torch_get_sizes(handle_, &shape), "sizes");
  check(shims.aoti_torch_get_strides(handle_, &strides), "strides");
  check(shims.aoti_torch_get_dtype(handle_, &dtype), "dtype");
  check(shims.aoti_torch_get_data_ptr(handle_, &view.data), "data_ptr");
  view.ndim = int(ndim);
  for (int i = 0; i < view.ndim; ++i) {
    view.shape[i] = shape[i];
    view.strides[i] = strides[i];
  }
  for (int i = 0; i < int(std::size(shims.dtypes)); ++i)
    if (shims.dtypes[i] == dtype) {
      view.dtype = DType(i);
      return view;
    }
  raise<TypeError>("honed: a tensor has torch's element type ", dtype,
                   ", expected a real floating, integer or bool type");
}

std::optional<TorchTensor> take_optional(TorchValue value) {
  if (!value) return std::nullopt;
  auto* boxed = reinterpret_cast<TorchValue*>(value);
  std::optional<TorchTensor> tensor(std::in_place, reinterpret_cast<void*>(*boxed));
  if (shims.torch_delete_stable_ivalue)
    shims.torch_delete_stable_ivalue(boxed);
  else
    delete boxed;
  return tensor;
}

void bind_torch_library(py::module_& m) {
  m.def("register_torch_ops", &register_torch_ops,
        "Registers the ops of torch_schemas() with torch's dispatcher; the names, none where torch "
        "lacks a shim.",
        py::arg("namespace"));
  m.def("torch_schemas", &torch_schemas, "Schemas of the ops that torch can be given.");
}

}  // namespace honed::bindings
