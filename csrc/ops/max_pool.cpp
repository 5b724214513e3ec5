// max_pool: the CPU table.
#include "ops/max_pool.h"

#include "core/check.h"
#include "cpu/dispatch.h"

namespace honed {

DType type_of_codes(const PoolArgs& args) {
  return args.h.kernel * args.w.kernel <= kSmallKernel ? DType::i8 : DType::i32;
}

void max_pool(const TensorView& y, const TensorView* codes, const TensorView* indices,
              const TensorView& x, PoolArgs args) {
  args.from = x.data;
  args.to = y.data;
  args.codes = codes ? codes->data : nullptr;
  args.indices = indices ? indices->as<int64_t>() : nullptr;
  int64_t channels = args.channels_last ? args.channels : 1;
  cpu::run(cpu::kernels().max_pool, args, args.batch * args.channels / channels * args.h.out,
           cpu::grain_for(channels * args.w.out * args.h.kernel * args.w.kernel / 2));
}

void max_pool_backward(const TensorView& dx, const TensorView& g, const TensorView& codes,
                       PoolArgs args) {
  DType expected = type_of_codes(args);
  HONED_CHECK_TYPE(codes.dtype == expected, "max_pool_backward: codes are ", name_of(codes.dtype),
                   ", expected ", name_of(expected));
  HONED_CHECK(same_shape(codes, g), "max_pool_backward: codes have shape ", shape_of(codes),
              ", expected grad's, ", shape_of(g));
  args.from = g.data;
  args.to = dx.data;
  args.codes = codes.data;
  int64_t channels = args.channels_last ? args.channels : 1;
  cpu::run(cpu::kernels().max_pool_backward, args,
           args.batch * args.channels / channels * args.h.in,
           cpu::grain_for(channels * args.w.in * 2));
}

}  // namespace honed
