// rms_norm: checks, then the CPU table.
#include "ops/rms_norm.h"

#include "core/check.h"
#include "cpu/dispatch.h"

namespace honed {

void rms_norm(const TensorView& y, const TensorView& x, const TensorView* w, float eps) {
  HONED_CHECK_TYPE(is_float(x.dtype), "rms_norm: input is ", name_of(x.dtype),
                   ", expected float32, float16 or bfloat16");
  if (w) {
    HONED_CHECK_TYPE(is_float(w->dtype), "rms_norm: weight is ", name_of(w->dtype),
                     ", expected float32, float16 or bfloat16");
    HONED_CHECK(w->ndim == 1 && w->size(0) == x.size(1) && w->contiguous(),
                "rms_norm: weight has shape ", shape_of(*w), ", expected a contiguous [", x.size(1),
                "]");
  }
  RmsNormArgs args{
      x.data,      w ? w->data : nullptr, y.data, x.size(0), x.size(1),
      x.stride(0), y.stride(0),           eps,    x.dtype,   w ? w->dtype : DType::f32};
  cpu::run(cpu::kernels().rms_norm, args, args.rows, cpu::grain_for(args.cols / 4));
}

}  // namespace honed
