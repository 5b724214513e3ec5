// A borrowed tensor: pointer, shape, strides (in elements), type, device. The currency between
// layers.
#pragma once
#include <cstdint>
#include <string>

#include "core/dtype.h"

namespace honed {

inline constexpr int kMaxDims = 8;

enum class Device : uint8_t { cpu, cuda };

struct TensorView {
  void* data = nullptr;
  int64_t shape[kMaxDims] = {};
  int64_t strides[kMaxDims] = {};
  int ndim = 0;
  DType dtype = DType::f32;
  Device device = Device::cpu;
  bool readonly = false;

  int64_t numel() const;
  int64_t size(int dim) const;    // dim may be negative, counted from the end
  int64_t stride(int dim) const;  // likewise
  bool contiguous() const;
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

std::string shape_of(const TensorView& view);           // "[2, 3]", for messages
float element(const TensorView& view, int64_t offset);  // of a f32, f16 or bf16 tensor
bool same_shape(const TensorView& a, const TensorView& b);

}  // namespace honed
