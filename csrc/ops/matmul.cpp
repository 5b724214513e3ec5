// matmul: checks, then the CPU table, a matrix at a time.
#include "ops/matmul.h"

#include "core/check.h"
#include "cpu/dispatch.h"

namespace honed {

void matmul(const TensorView& y, const TensorView& a, const TensorView& b,
            const Epilogue& epilogue) {
  HONED_CHECK_TYPE(a.dtype == DType::f64 || is_float(a.dtype), "matmul: input is ",
                   name_of(a.dtype), ", expected float64, float32, float16 or bfloat16");
  HONED_CHECK_TYPE(a.dtype == b.dtype, "matmul: input is ", name_of(a.dtype), " and other is ",
                   name_of(b.dtype), ", expected the same type");
  HONED_CHECK(a.size(-1) == b.size(-2), "matmul: input has shape ", shape_of(a), " and other ",
              shape_of(b), ", expected the columns of input to be as many as the rows of other");
  MatmulArgs args{};
  args.m = a.size(-2);
  args.n = b.size(-1);
  args.k = a.size(-1);
  args.a_row = a.stride(-2);
  args.a_col = a.stride(-1);
  args.b_row = b.stride(-2);
  args.b_col = b.stride(-1);
  args.scale = epilogue.scale;
  args.bias = epilogue.bias ? epilogue.bias->data : nullptr;
  args.activation = epilogue.activation;
  args.dtype = a.dtype;
  args.y_row = y.stride(-2);
  args.y_col = y.stride(-1);
  if (epilogue.residual) {
    args.residual = epilogue.residual->data;
    args.residual_row = epilogue.residual->stride(-2);
    args.residual_col = epilogue.residual->stride(-1);
  }
  int64_t batch = 1;
  for (int i = 0; i < y.ndim - 2; ++i) batch *= y.shape[i];
  const int64_t size = size_of(a.dtype);
  for (int64_t i = 0; i < batch; ++i) {
    int64_t left = i, at_a = 0, at_b = 0, at_y = 0;
    for (int d = y.ndim - 3; d >= 0; --d) {
      int64_t index = left % y.shape[d];
      left /= y.shape[d];
      at_a += index * a.strides[d];
      at_b += index * b.strides[d];
      at_y += index * y.strides[d];
    }
    args.a = a.as<char>() + at_a * size;
    args.b = b.as<char>() + at_b * size;
    args.y = y.as<char>() + at_y * size;
    cpu::run(cpu::kernels().matmul, args, args.m, cpu::grain_for(args.n * args.k));
  }
}

}  // namespace honed
