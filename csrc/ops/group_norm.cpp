// group_norm: checks, then the CPU table.
#include "ops/group_norm.h"

#include "core/check.h"
#include "cpu/dispatch.h"
#include "ops/_wide_weight.h"

namespace honed {

namespace {

// Weights, bias and types are checked as those of rows of C.
void check(const char* op, const TensorView& x, const TensorView* w, const TensorView* b,
           int64_t groups, const TensorView* g = nullptr) {
  HONED_CHECK(x.ndim >= 2, op, ": input has shape ", shape_of(x),
              ", expected at least 2 dimensions");
  HONED_CHECK(groups > 0 && x.size(1) % groups == 0, op, ": input has ", x.size(1),
              " channels, expected a multiple of num_groups, ", groups);
  TensorView row = x;
  row.ndim = 2;
  check_norm(op, row, w, b);
  if (g) {
    HONED_CHECK_TYPE(g->dtype == x.dtype, op, ": grad is ", name_of(g->dtype),
                     ", expected input's type, ", name_of(x.dtype));
    HONED_CHECK(same_shape(*g, x), op, ": grad has shape ", shape_of(*g), ", expected input's, ",
                shape_of(x));
  }
}

int64_t size_of_channel(const TensorView& x) {
  int64_t size = 1;
  for (int i = 2; i < x.ndim; ++i) size *= x.shape[i];
  return size;
}

}  // namespace

void group_norm(const TensorView& y, const TensorView& x, const TensorView* w, const TensorView* b,
                int64_t groups, double eps) {
  check("group_norm", x, w, b, groups);
  WideWeight wide_w(w), wide_b(b);
  GroupNormArgs args{x.data,    wide_w.data(), wide_b.data(),      y.data, x.size(0),
                     x.size(1), groups,        size_of_channel(x), eps,    x.dtype};
  cpu::run(cpu::kernels().group_norm, args, args.batch * groups,
           cpu::grain_for(args.channels / groups * args.size / 3));
}

void group_norm_backward(const NormGradients& t, int64_t groups, double eps) {
  check("group_norm_backward", t.x, t.w, nullptr, groups, &t.g);
  WideWeight w(t.w);
  int64_t batch = t.x.size(0), channels = t.x.size(1);
  int64_t bytes = batch * channels * (t.x.dtype == DType::f64 ? 8 : 4);
  Scratch sums(((t.dw != nullptr) + (t.db != nullptr)) * bytes);
  char* w_sums = sums.as<char>();
  char* b_sums = w_sums + (t.dw ? bytes : 0);
  GroupNormBackwardArgs args{t.g.data,
                             t.x.data,
                             w.data(),
                             t.dx ? t.dx->data : nullptr,
                             t.dw ? w_sums : nullptr,
                             t.db ? b_sums : nullptr,
                             batch,
                             channels,
                             groups,
                             size_of_channel(t.x),
                             eps,
                             t.x.dtype};
  cpu::run(cpu::kernels().group_norm_backward, args, batch * groups,
           cpu::grain_for(channels / groups * args.size / 2));
  if (t.dw) add_columns(w_sums, batch, *t.dw);
  if (t.db) add_columns(b_sums, batch, *t.db);
}

}  // namespace honed
