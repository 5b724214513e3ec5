// softmax: checks, then the CPU table.
#include "ops/softmax.h"

#include "core/check.h"
#include "cpu/dispatch.h"

namespace honed {

void softmax(const TensorView& y, const TensorView& x) {
  HONED_CHECK_TYPE(is_float(x.dtype), "softmax: input is ", name_of(x.dtype),
                   ", expected float32, float16 or bfloat16");
  HONED_CHECK_TYPE(y.dtype == x.dtype || y.dtype == DType::f32, "softmax: the result is ",
                   name_of(y.dtype), ", expected ", name_of(x.dtype), " or float32");
  SoftmaxArgs args{x.data,      y.data,      x.size(0), x.size(1),
                   x.stride(0), y.stride(0), x.dtype,   y.dtype};
  cpu::run(cpu::kernels().softmax, args, args.rows, cpu::grain_for(3 * args.cols));
}

}  // namespace honed
