// layer_norm: checks, then the CPU table.
#include "ops/layer_norm.h"

#include "core/check.h"
#include "cpu/dispatch.h"

namespace honed {

namespace {

void check_vector(const char* what, const TensorView* v, const TensorView& x) {
  if (!v) return;
  HONED_CHECK_TYPE(is_float(v->dtype), "layer_norm: ", what, " is ", name_of(v->dtype),
                   ", expected float32, float16 or bfloat16");
  HONED_CHECK(v->ndim == 1 && v->size(0) == x.size(1) && v->contiguous(), "layer_norm: ", what,
              " has shape ", shape_of(*v), ", expected a contiguous [", x.size(1), "]");
}

}  // namespace

void layer_norm(const TensorView& y, const TensorView& x, const TensorView* w, const TensorView* b,
                float eps) {
  HONED_CHECK_TYPE(is_float(x.dtype), "layer_norm: input is ", name_of(x.dtype),
                   ", expected float32, float16 or bfloat16");
  check_vector("weight", w, x);
  check_vector("bias", b, x);
  HONED_CHECK_TYPE(!w || !b || w->dtype == b->dtype, "layer_norm: bias is ", name_of(b->dtype),
                   ", expected weight's type ", name_of(w->dtype));
  LayerNormArgs args{x.data,
                     w ? w->data : nullptr,
                     b ? b->data : nullptr,
                     y.data,
                     x.size(0),
                     x.size(1),
                     x.stride(0),
                     y.stride(0),
                     eps,
                     x.dtype,
                     w   ? w->dtype
                     : b ? b->dtype
                         : DType::f32};
  cpu::run(cpu::kernels().layer_norm, args, args.rows, cpu::grain_for(args.cols / 2));
}

}  // namespace honed
