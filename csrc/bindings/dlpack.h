// The DLPack 1.3 memory layout, as its specification gives it (https://dmlc.github.io/dlpack).
#pragma once
#include <cstdint>

namespace honed::dlpack {

inline constexpr int32_t kCpu = 1, kCuda = 2, kCudaHost = 3;
inline constexpr uint8_t kInt = 0, kUInt = 1, kFloat = 2, kBfloat = 4, kBool = 6;
inline constexpr uint64_t kReadOnly = 1;

struct Version {
  uint32_t major, minor;
};
struct DeviceId {
  int32_t type, id;
};
struct DataType {
  uint8_t code, bits;
  uint16_t lanes;
};
struct Tensor {
  void* data;
  DeviceId device;
  int32_t ndim;
  DataType dtype;
  int64_t* shape;
  int64_t* strides;  // in elements; nullptr: row-major
  uint64_t byte_offset;
};
struct Managed {
  Tensor tensor;
  void* context;
  void (*deleter)(Managed*);
};
struct ManagedVersioned {
  Version version;
  void* context;
  void (*deleter)(ManagedVersioned*);
  uint64_t flags;
  Tensor tensor;
};

// What the capsule `__dlpack_c_exchange_api__` of a tensor type points to. Return 0 on success.
struct ExchangeApi {
  Version version;
  ExchangeApi* previous;
  int (*allocate)(Tensor* prototype, ManagedVersioned** out, void* error,
                  void (*set_error)(void* error, const char* kind, const char* message));
  int (*to_managed)(void* object, ManagedVersioned** out);
  int (*to_object)(ManagedVersioned* tensor, void** object);  // steals the tensor
  int (*borrow)(void* object, Tensor* out);
  int (*stream)(int32_t device_type, int32_t device_id, void** out);
};

}  // namespace honed::dlpack
