// Ops of torch.library, without torch at build or link time: its stable C shims are looked up in the
// library that the process has loaded (torch/csrc/inductor/aoti_torch/c/shim.h). An op is a
// function
//   TorchTensor run(const TorchTensor& x, const std::optional<TorchTensor>& bias, double scale)
// and a line
//   const TorchOp op{"name(Tensor x, Tensor? bias, float scale) -> Tensor", boxed<run>};
// The shapes for tracing are given in Python (honed/ops/_library.py).
#pragma once
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <tuple>
#include <type_traits>
#include <utility>

#include "core/tensor_view.h"

namespace honed::bindings {

// A tensor of torch's that this object owns.
class TorchTensor {
 public:
  explicit TorchTensor(void* handle) : handle_(handle) {}
  TorchTensor(TorchTensor&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  TorchTensor& operator=(TorchTensor&&) = delete;
  ~TorchTensor();
  // New and contiguous, in CPU memory.
  static TorchTensor empty(std::span<const int64_t> shape, DType dtype);

  TensorView view() const;
  void* release() { return std::exchange(handle_, nullptr); }

 private:
  void* handle_;
};

using TorchValue = uint64_t;  // an argument or a result on torch's stack
using TorchFunction = void (*)(TorchValue* stack, uint64_t arguments, uint64_t results);

std::optional<TorchTensor> take_optional(TorchValue value);

template <class T>
T take(TorchValue value) {
  if constexpr (std::is_same_v<T, TorchTensor>) {
    return TorchTensor(reinterpret_cast<void*>(value));
  } else if constexpr (std::is_same_v<T, std::optional<TorchTensor>>) {
    return take_optional(value);
  } else if constexpr (std::is_same_v<T, double>) {
    double number;
    std::memcpy(&number, &value, sizeof number);
    return number;
  } else {
    static_assert(std::is_same_v<T, int64_t>, "int64_t for int and SymInt, double for float");
    return int64_t(value);
  }
}

// Every argument is taken before the function runs, so that a refusal frees them all.
template <auto run, class... Args, size_t... at>
void call_boxed(TorchTensor (*)(Args...), TorchValue* stack, std::index_sequence<at...>) {
  std::tuple<std::decay_t<Args>...> arguments{take<std::decay_t<Args>>(stack[at])...};
  TorchTensor result = std::apply(run, arguments);
  stack[0] = reinterpret_cast<TorchValue>(result.release());
}
template <class... Args>
constexpr auto places(TorchTensor (*)(Args...)) {
  return std::index_sequence_for<Args...>{};
}
template <auto run>
void boxed(TorchValue* stack, uint64_t, uint64_t) {
  call_boxed<run>(run, stack, places(run));
}

// Puts an op on the list that register_torch_ops() goes through.
struct TorchOp {
  TorchOp(const char* schema, TorchFunction function);
  const char* schema;
  TorchFunction function;
  const TorchOp* next;
};

}  // namespace honed::bindings
