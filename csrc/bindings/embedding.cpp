// honed._core.embedding, embedding_backward
#include "ops/embedding.h"

#include <algorithm>

#include "bindings/function.h"
#include "core/check.h"

namespace honed::bindings {

namespace {

// weight first: the result is of its kind, whatever holds the ids
auto forward(Results& results, const TensorView& weight, const TensorView& input) {
  HONED_CHECK(weight.ndim == 2, "embedding: weight has shape ", shape_of(weight),
              ", expected [rows, columns]");
  HONED_CHECK(input.ndim < kMaxDims, "embedding: input has ", input.ndim,
              " dimensions, expected at most ", kMaxDims - 1);
  int64_t shape[kMaxDims];
  std::copy(input.shape, input.shape + input.ndim, shape);
  shape[input.ndim] = weight.size(1);
  TensorView out = results.make({shape, size_t(input.ndim) + 1}, weight.dtype);
  return [=] {
    Dense ids(input);
    Rows table(weight), y(out);
    embedding(y.view(), *ids.view(), table.view());
  };
}

auto backward(Results& results, const TensorView& grad, const TensorView& input, int64_t rows,
              int64_t padding_idx, bool scale_grad_by_freq) {
  HONED_CHECK(
      grad.ndim == input.ndim + 1 && std::equal(input.shape, input.shape + input.ndim, grad.shape),
      "embedding_backward: grad has shape ", shape_of(grad), " and input ", shape_of(input),
      ", expected input's shape and the columns");
  int64_t shape[] = {rows, grad.size(-1)};
  TensorView d_weight = results.make(shape, grad.dtype);
  return [=] {
    Dense ids(input);
    Rows g(grad);
    embedding_backward(d_weight, g.view(), *ids.view(), padding_idx, scale_grad_by_freq);
  };
}

}  // namespace

void bind_embedding(py::module_& m) {
  define<forward>(m, "embedding(Tensor weight, Tensor input) -> Tensor");
  define<backward>(m,
                   "embedding_backward(Tensor grad, Tensor input, SymInt rows, int padding_idx, "
                   "bool scale_grad_by_freq) -> Tensor");
}

}  // namespace honed::bindings
