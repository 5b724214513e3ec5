// avg_pool: the CPU table.
#include "ops/avg_pool.h"

#include "cpu/dispatch.h"

namespace honed {

void avg_pool(const TensorView& y, const TensorView& x, PoolArgs args) {
  args.from = x.data;
  args.to = y.data;
  int64_t channels = args.channels_last ? args.channels : 1;
  cpu::run(cpu::kernels().avg_pool, args, args.batch * args.channels / channels * args.h.out,
           cpu::grain_for(channels * args.w.out * args.h.kernel * args.w.kernel / 2));
}

void avg_pool_backward(const TensorView& dx, const TensorView& g, PoolArgs args) {
  args.from = g.data;
  args.to = dx.data;
  int64_t channels = args.channels_last ? args.channels : 1;
  cpu::run(cpu::kernels().avg_pool_backward, args,
           args.batch * args.channels / channels * args.h.in,
           cpu::grain_for(channels * args.w.in * 2));
}

}  // namespace honed
