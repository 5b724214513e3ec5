// gelu: checks, then the CPU table.
#include "ops/gelu.h"

#include "core/check.h"
#include "cpu/dispatch.h"

namespace honed {

void gelu(const TensorView& y, const TensorView& x, bool tanh) {
  HONED_CHECK_TYPE(is_float(x.dtype), "gelu: input is ", name_of(x.dtype),
                   ", expected float32, float16 or bfloat16");
  GeluArgs args{x.data, y.data, x.size(0), x.size(1), x.stride(0), y.stride(0), tanh, x.dtype};
  bool blocks = args.rows == 1;
  int64_t items = blocks ? (args.cols + kGeluBlock - 1) / kGeluBlock : args.rows;
  cpu::run(cpu::kernels().gelu, args, items, cpu::grain_for(4 * (blocks ? kGeluBlock : args.cols)));
}

}  // namespace honed
