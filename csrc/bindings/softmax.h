// What softmax and log_softmax share.
#pragma once
#include "bindings/function.h"

namespace honed::bindings {

inline int checked_dim(const char* op, const TensorView& t, int64_t dim) {
  HONED_CHECK(t.ndim > 0, op, ": input has no dimensions, expected at least 1");
  HONED_CHECK(dim >= -t.ndim && dim < t.ndim, op, ": dim is ", dim,
              ", expected a dimension of a tensor of shape ", shape_of(t));
  return int(dim < 0 ? dim + t.ndim : dim);
}

// A tensor as rows where `dim` is the last, else contiguous.
class Along {
 public:
  Along(const TensorView& t, int dim) {
    if (dim + 1 == t.ndim)
      rows_.emplace(t);
    else
      dense_.emplace(t);
  }
  const TensorView& view() const { return rows_ ? rows_->view() : *dense_->view(); }

 private:
  std::optional<Rows> rows_;
  std::optional<Dense> dense_;
};

template <auto run>
auto softmax_forward(Results& results, const char* op, const TensorView& input, int64_t dim,
                     bool to_f32) {
  int at = checked_dim(op, input, dim);
  TensorView out =
      results.make({input.shape, size_t(input.ndim)}, to_f32 ? DType::f32 : input.dtype);
  return [=] {
    Along x(input, at), y(out, at);
    run(y.view(), x.view(), at + 1 == input.ndim ? 1 : at);
  };
}

// narrow: the type of the input; 0: output's, 1: float16, 2: bfloat16.
template <auto run>
auto softmax_gradient(Results& results, const char* op, const TensorView& grad,
                      const TensorView& output, int64_t dim, int64_t narrow) {
  int at = checked_dim(op, output, dim);
  HONED_CHECK(same_shape(grad, output), op, ": grad has shape ", shape_of(grad), " and output ",
              shape_of(output), ", expected equal shapes");
  DType dtype = narrow == 1 ? DType::f16 : narrow == 2 ? DType::bf16 : output.dtype;
  TensorView d_input = results.make({output.shape, size_t(output.ndim)}, dtype);
  return [=] {
    Along g(grad, at), y(output, at), dx(d_input, at);
    run(dx.view(), g.view(), y.view(), at + 1 == output.ndim ? 1 : at);
  };
}

}  // namespace honed::bindings
