// rms_norm: checks, then the CPU table.
#include "ops/rms_norm.h"

#include "core/check.h"
#include "cpu/dispatch.h"
#include "ops/_norm.h"

namespace honed {

void rms_norm(const TensorView& y, const TensorView& x, const TensorView* w, double eps) {
  check_norm("rms_norm", x, w, nullptr);
  RmsNormArgs args{x.data,      w ? w->data : nullptr, y.data, x.size(0), x.size(1),
                   x.stride(0), y.stride(0),           eps,    x.dtype,   w ? w->dtype : x.dtype};
  cpu::run(cpu::kernels().rms_norm, args, args.rows, cpu::grain_for(args.cols / 4));
}

void rms_norm_backward(const TensorView* dx, const TensorView* dw, const TensorView& g,
                       const TensorView& x, const TensorView* w, double eps) {
  check_norm("rms_norm_backward", x, w, &g);
  ColumnSums sums(dw, x);
  RmsNormBackwardArgs args{g.data,
                           x.data,
                           w ? w->data : nullptr,
                           dx ? dx->data : nullptr,
                           sums.partial(0),
                           x.size(0),
                           x.size(1),
                           g.stride(0),
                           x.stride(0),
                           dx ? dx->stride(0) : 0,
                           eps,
                           x.dtype,
                           w ? w->dtype : x.dtype};
  cpu::run(cpu::kernels().rms_norm_backward, args, sums.blocks(),
           cpu::grain_for(args.cols / 2 * kNormRows));
  sums.add();
}

}  // namespace honed
