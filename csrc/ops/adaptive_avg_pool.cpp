// adaptive_avg_pool: the CPU table.
#include "ops/adaptive_avg_pool.h"

#include <algorithm>

#include "cpu/dispatch.h"

namespace honed {

namespace {

// rows: of the tensor that is written.
void run(cpu::Kernel<PoolArgs> kernel, const PoolArgs& args, int64_t rows) {
  int64_t plane = std::max(args.h.in * args.w.in, args.h.out * args.w.out);
  if (!args.channels_last)
    return cpu::run(kernel, args, args.batch * args.channels, cpu::grain_for(plane / 4));
  int64_t pieces = (args.channels + kPoolChannels - 1) / kPoolChannels;
  cpu::run(kernel, args, args.batch * rows * pieces,
           cpu::grain_for(plane * std::min(args.channels, kPoolChannels) / (4 * rows)));
}

}  // namespace

void adaptive_avg_pool(const TensorView& y, const TensorView& x, PoolArgs args) {
  args.from = x.data;
  args.to = y.data;
  if (y.numel()) run(cpu::kernels().adaptive_avg_pool, args, args.h.out);
}

void adaptive_avg_pool_backward(const TensorView& dx, const TensorView& g, PoolArgs args) {
  args.from = g.data;
  args.to = dx.data;
  if (dx.numel()) run(cpu::kernels().adaptive_avg_pool_backward, args, args.h.in);
}

}  // namespace honed
