// One function of tensors for both callers: Python (honed._core.<name>, positional arguments) and
// torch's dispatcher (torch.ops.honed.<name>).
//
//   auto twice(Results& results, const TensorView& x, const TensorView* bias, double by) {
//     TensorView y = results.make_like(x);  // checks and new tensors first ...
//     return [=] { work(y, x, bias, by); };  // ... then the work, without Python's lock
//   }
//   define<twice>(m, "twice(Tensor x, Tensor? bias, float by) -> Tensor");
//
// Arguments: const TensorView& (Tensor), const TensorView* (Tensor?), double (float), int64_t (int),
// bool. Several results: "-> (Tensor, Tensor)".
#pragma once
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "bindings/tensor.h"
#include "bindings/torch_library.h"

namespace honed::bindings {

template <class T>
struct FromPython {
  using type = T;
  static T get(T value) { return value; }
  static const Tensor* tensor(const T&) { return nullptr; }
};
template <>
struct FromPython<const TensorView&> {
  using type = const Tensor&;
  static const TensorView& get(const Tensor& t) { return t.view(); }
  static const Tensor* tensor(const Tensor& t) { return &t; }
};
template <>
struct FromPython<const TensorView*> {
  using type = const OptionalTensor&;
  static const TensorView* get(const OptionalTensor& t) { return t ? &t->view() : nullptr; }
  static const Tensor* tensor(const OptionalTensor& t) { return t ? &*t : nullptr; }
};

class PythonResults : public Results {
 public:
  explicit PythonResults(const Tensor& like) : like_(like) {}
  TensorView make(std::span<const int64_t> shape, DType dtype) override {
    NewTensor made = empty(like_, shape, dtype);
    made_.push_back(std::move(made.object));
    return made.view;
  }
  TensorView make_in_order(const TensorView& like, const int* order) override {
    int64_t shape[kMaxDims];
    py::tuple back{size_t(like.ndim)};
    for (int i = 0; i < like.ndim; ++i) {
      shape[i] = like.shape[order[i]];
      back[size_t(order[i])] = i;
    }
    TensorView made = make({shape, size_t(like.ndim)}, like.dtype), view = like;
    for (int i = 0; i < like.ndim; ++i) view.strides[order[i]] = made.strides[i];
    view.data = made.data;
    py::object& object = made_.back();
    object = object.attr(py::hasattr(object, "permute") ? "permute" : "transpose")(back);
    return view;
  }
  void skip() override { made_.push_back(py::none()); }
  py::object give() {
    if (made_.size() == 1) return made_[0];
    py::tuple all(made_.size());
    for (size_t i = 0; i < made_.size(); ++i) all[i] = made_[i];
    return all;
  }

 private:
  const Tensor& like_;
  std::vector<py::object> made_;
};

template <auto body, class R, class... Args>
void define_as(py::module_& m, const char* schema, R (*)(Results&, Args...)) {
  static const TorchOp op{schema, boxed<body>};
  std::string name(schema, std::strchr(schema, '('));
  m.def(
      name.c_str(),
      [name](typename FromPython<Args>::type... args) {
        const Tensor* first = nullptr;
        auto look = [&](const Tensor* tensor) {
          if (!tensor) return;
          if (!first) first = tensor;
          require_cpu(name.c_str(), {tensor});
        };
        (look(FromPython<Args>::tensor(args)), ...);
        PythonResults results(*first);
        {
          auto work = body(results, FromPython<Args>::get(args)...);
          py::gil_scoped_release released;
          work();
        }
        return results.give();
      },
      schema);
}
template <auto body>
void define(py::module_& m, const char* schema) {
  define_as<body>(m, schema, +body);
}

}  // namespace honed::bindings
