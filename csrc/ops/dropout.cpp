// dropout: checks, then the CPU table.
#include "ops/dropout.h"

#include <cstring>

#include "core/check.h"
#include "core/rng.h"
#include "cpu/dispatch.h"

namespace honed {

void dropout(const TensorView& y, const TensorView& x, uint64_t seed, double p) {
  HONED_CHECK_TYPE(is_real(x.dtype), "dropout: input is ", name_of(x.dtype),
                   ", expected float64, float32, float16 or bfloat16");
  HONED_CHECK(p >= 0 && p <= 1, "dropout: p is ", p, ", expected at least 0 and at most 1");
  if (p == 1) {  // no threshold is above all bits
    std::memset(y.data, 0, size_t(y.numel() * size_of(y.dtype)));
    return;
  }
  DropoutArgs args{x.data,      y.data, x.size(0), x.size(1), x.stride(0), seed, drop_threshold(p),
                   1 / (1 - p), x.dtype};
  bool blocks = args.rows == 1;
  int64_t items = blocks ? (args.cols + kDropoutBlock - 1) / kDropoutBlock : args.rows;
  cpu::run(cpu::kernels().dropout, args, items,
           cpu::grain_for(2 * (blocks ? kDropoutBlock : args.cols)));
}

}  // namespace honed
