// Sizes and checks of the poolings.
#include "ops/_pool.h"

#include <algorithm>

#include "core/check.h"

namespace honed {

namespace {

int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }

PoolArgs sizes_of(const char* op, const TensorView& x, int64_t dims) {
  HONED_CHECK_TYPE(is_real(x.dtype), op, ": input is ", name_of(x.dtype),
                   ", expected float64, float32, float16 or bfloat16");
  HONED_CHECK(x.ndim == dims + 1 || x.ndim == dims + 2, op, ": input has shape ", shape_of(x),
              ", expected ", dims + 1, " or ", dims + 2, " dimensions");
  PoolArgs args{};
  bool batched = x.ndim == dims + 2;
  args.batch = batched ? x.size(0) : 1;
  args.channels = x.shape[batched];
  args.h.in = dims == 2 ? x.size(-2) : 1;
  args.w.in = x.size(-1);
  args.dtype = x.dtype;
  return args;
}

void complete(const char* op, const TensorView& x, PoolAxis* axis, const PoolWindow& window, int at,
              bool half_of_holes) {
  axis->kernel = window.kernel[at];
  axis->stride = window.stride[at];
  axis->padding = window.padding[at];
  axis->dilation = window.dilation[at];
  HONED_CHECK(axis->kernel > 0, op, ": kernel_size is ", axis->kernel, ", expected more than 0");
  HONED_CHECK(axis->stride > 0, op, ": stride is ", axis->stride, ", expected more than 0");
  HONED_CHECK(axis->dilation > 0, op, ": dilation is ", axis->dilation, ", expected more than 0");
  int64_t span = (axis->kernel - 1) * axis->dilation + 1;
  int64_t most = (half_of_holes ? span : axis->kernel) / 2;
  HONED_CHECK(axis->padding >= 0 && axis->padding <= most, op, ": padding is ", axis->padding,
              ", expected 0 to half of the kernel, ", most);
  int64_t left = axis->in + 2 * axis->padding - span;
  axis->out = floor_div(left + (window.ceil ? axis->stride - 1 : 0), axis->stride) + 1;
  // The last window begins inside, or in the padding before.
  if (window.ceil && (axis->out - 1) * axis->stride >= axis->in + axis->padding) --axis->out;
  HONED_CHECK(axis->out > 0, op, ": input has shape ", shape_of(x), ", whose result has ",
              std::max<int64_t>(axis->out, 0),
              " elements along a dimension, expected windows no larger than the padded input");
  if (axis->out == 1) axis->stride = 1;  // any is the same
}

}  // namespace

PoolArgs pool_args(const char* op, const TensorView& x, int64_t dims, const PoolWindow& window,
                   bool max) {
  PoolArgs args = sizes_of(op, x, dims);
  HONED_CHECK(args.channels > 0 && args.h.in > 0 && args.w.in > 0, op, ": input has shape ",
              shape_of(x), ", expected no size of 0 but that of the batch");
  complete(op, x, &args.h, window, 0, max && dims == 2);
  complete(op, x, &args.w, window, 1, max && dims == 2);
  return args;
}

PoolArgs adaptive_args(const char* op, const TensorView& x, int64_t dims, int64_t out_h,
                       int64_t out_w) {
  PoolArgs args = sizes_of(op, x, dims);
  HONED_CHECK(args.h.in > 0 && args.w.in > 0, op, ": input has shape ", shape_of(x),
              ", expected no size of 0 but those of batch and channels");
  HONED_CHECK(out_h >= 0 && out_w >= 0, op, ": output_size is ", out_h < 0 ? out_h : out_w,
              ", expected 0 or more");
  args.h.out = out_h;
  args.w.out = out_w;
  return args;
}

void check_pool_grad(const char* op, const PoolArgs& args, const TensorView& g, int64_t dims) {
  HONED_CHECK(g.size(-1) == args.w.out && (dims == 1 || g.size(-2) == args.h.out), op,
              ": grad has shape ", shape_of(g), ", expected it to end with ", args.h.out, ", ",
              args.w.out);
}

}  // namespace honed
