// silu: checks, then the CPU table.
#include "ops/silu.h"

#include "core/check.h"
#include "cpu/dispatch.h"

namespace honed {

void silu(const TensorView& y, const TensorView& x) {
  HONED_CHECK_TYPE(is_float(x.dtype), "silu: input is ", name_of(x.dtype),
                   ", expected float32, float16 or bfloat16");
  SiluArgs args{x.data, y.data, x.size(0), x.size(1), x.stride(0), y.stride(0), x.dtype};
  bool blocks = args.rows == 1;
  int64_t items = blocks ? (args.cols + kSiluBlock - 1) / kSiluBlock : args.rows;
  cpu::run(cpu::kernels().silu, args, items, cpu::grain_for(2 * (blocks ? kSiluBlock : args.cols)));
}

}  // namespace honed
