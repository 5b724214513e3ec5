// Checks and column sums of the normalisations.
#include "ops/_norm.h"

#include "core/check.h"
#include "cpu/dispatch.h"
#include "ops/rms_norm.h"

namespace honed {

void check_norm(const char* op, const TensorView& x, const TensorView* w, const TensorView* g) {
  HONED_CHECK_TYPE(is_real(x.dtype), op, ": input is ", name_of(x.dtype),
                   ", expected float64, float32, float16 or bfloat16");
  if (w) {
    HONED_CHECK_TYPE(is_real(w->dtype) && (w->dtype == DType::f64) == (x.dtype == DType::f64), op,
                     ": weight is ", name_of(w->dtype), " beside an input of ", name_of(x.dtype),
                     ", expected float32, float16 or bfloat16, or float64 for both");
    HONED_CHECK(w->ndim == 1 && w->size(0) == x.size(1) && w->contiguous(), op,
                ": weight has shape ", shape_of(*w), ", expected a contiguous [", x.size(1), "]");
  }
  if (g) {
    HONED_CHECK_TYPE(g->dtype == x.dtype, op, ": grad is ", name_of(g->dtype),
                     ", expected input's type, ", name_of(x.dtype));
    HONED_CHECK(same_shape(*g, x), op, ": grad has shape ", shape_of(*g), ", expected input's, ",
                shape_of(x));
  }
}

ColumnSums::ColumnSums(const TensorView* to, const TensorView& x, const TensorView* also)
    : to_{to, also},
      blocks_((x.size(0) + kNormRows - 1) / kNormRows),
      cols_(x.size(1)),
      bytes_(blocks_ * cols_ * (x.dtype == DType::f64 ? 8 : 4)),
      scratch_(((to != nullptr) + (also != nullptr)) * bytes_) {}

void* ColumnSums::partial(int which) const {
  return to_[which] ? scratch_.as<char>() + (which && to_[0] ? bytes_ : 0) : nullptr;
}

void ColumnSums::add() const {
  for (int i = 0; i < 2; ++i) {
    if (!to_[i]) continue;
    ColumnSumsArgs args{partial(i), to_[i]->data, blocks_, cols_, to_[i]->dtype};
    cpu::run(cpu::kernels().column_sums, args, (cols_ + kSumColumns - 1) / kSumColumns,
             cpu::grain_for(blocks_ * kSumColumns / 8));
  }
}

}  // namespace honed
