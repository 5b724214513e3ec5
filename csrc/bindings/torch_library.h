// Ops of torch.library, without torch at build or link time: its stable C shims are looked up in the
// library that the process has loaded (torch/csrc/inductor/aoti_torch/c/shim.h). An op is a
// function as function.h describes it and a line
//   const TorchOp op{"name(Tensor x, Tensor? bias, float scale) -> Tensor", boxed<run>};
// The shapes for tracing are given in Python (honed/ops/_library.py).
#pragma once
#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "bindings/results.h"
#include "core/tensor_view.h"

namespace honed::bindings {

// A tensor of torch's that this object owns.
class TorchTensor {
 public:
  explicit TorchTensor(void* handle) : handle_(handle) {}
  TorchTensor(TorchTensor&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  TorchTensor& operator=(TorchTensor&&) = delete;
  ~TorchTensor();
  // New and contiguous, in CPU memory; in that order of dimensions, slowest first.
  static TorchTensor empty(std::span<const int64_t> shape, DType dtype, const int* order = nullptr);

  TensorView view() const;
  void* release() { return std::exchange(handle_, nullptr); }

 private:
  void* handle_;
};

using TorchValue = uint64_t;  // an argument or a result on torch's stack
using TorchFunction = void (*)(TorchValue* stack, uint64_t arguments, uint64_t results);

std::optional<TorchTensor> take_optional(TorchValue value);

// An argument from torch's stack: taken by the constructor, which does not throw, and read by get().
template <class T>
struct Taken {
  static_assert(std::is_same_v<T, int64_t> || std::is_same_v<T, double> || std::is_same_v<T, bool>,
                "int64_t for int and SymInt, double for float, bool");
  explicit Taken(TorchValue value) { std::memcpy(&number, &value, sizeof number); }
  T get() const { return number; }
  T number;
};
template <>
struct Taken<const TensorView&> {
  explicit Taken(TorchValue value) : tensor(reinterpret_cast<void*>(value)) {}
  const TensorView& get() { return view = tensor.view(); }
  TorchTensor tensor;
  TensorView view;
};
template <>
struct Taken<const TensorView*> {
  explicit Taken(TorchValue value) : tensor(take_optional(value)) {}
  const TensorView* get() {
    if (!tensor) return nullptr;
    view = tensor->view();
    return &view;
  }
  std::optional<TorchTensor> tensor;
  TensorView view;
};

class TorchResults : public Results {
 public:
  TensorView make(std::span<const int64_t> shape, DType dtype) override {
    return made_.emplace_back(TorchTensor::empty(shape, dtype)).view();
  }
  TensorView make_in_order(const TensorView& like, const int* order) override {
    return made_
        .emplace_back(TorchTensor::empty({like.shape, size_t(like.ndim)}, like.dtype, order))
        .view();
  }
  void skip() override { make(std::array<int64_t, 1>{0}, DType::f32); }
  void give(TorchValue* stack) {
    for (TorchTensor& each : made_) *stack++ = reinterpret_cast<TorchValue>(each.release());
  }

 private:
  std::vector<TorchTensor> made_;
};

// Every argument is taken before the function runs, so that a refusal frees them all.
template <auto run, class R, class... Args, size_t... at>
void call_boxed(R (*)(Results&, Args...), TorchValue* stack, std::index_sequence<at...>) {
  std::tuple<Taken<Args>...> arguments{Taken<Args>(stack[at])...};
  TorchResults results;
  run(results, std::get<at>(arguments).get()...)();
  results.give(stack);
}
template <class R, class... Args>
constexpr auto places(R (*)(Results&, Args...)) {
  return std::index_sequence_for<Args...>{};
}
template <auto run>
void boxed(TorchValue* stack, uint64_t, uint64_t) {
  call_boxed<run>(+run, stack, places(+run));
}

// Puts an op on the list that register_torch_ops() goes through.
struct TorchOp {
  TorchOp(const char* schema, TorchFunction function);
  const char* schema;
  TorchFunction function;
  const TorchOp* next;
};

}  // namespace honed::bindings
