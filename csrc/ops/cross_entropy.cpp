// cross_entropy: checks, the targets among them, then the CPU table; reductions.
#include "ops/cross_entropy.h"

#include <cmath>
#include <cstring>

#include "core/arena.h"
#include "core/check.h"
#include "cpu/dispatch.h"
#include "ops/_sizes.h"

namespace honed {

namespace {

double number(const TensorView& t, int64_t offset) {
  return t.dtype == DType::f64 ? t.as<double>()[offset] : double(element(t, offset));
}

}  // namespace

void put_number(const TensorView& t, int64_t at, double value) {
  switch (t.dtype) {
    case DType::f64:
      t.as<double>()[at] = value;
      break;
    case DType::f32:
      t.as<float>()[at] = float(value);
      break;
    case DType::f16:
      t.as<f16>()[at] = to_f16(float(value));
      break;
    default:
      t.as<bf16>()[at] = to_bf16(float(value));
  }
}

void widen(const TensorView& from, double* to) {
  for (int64_t i = 0; i < from.numel(); ++i) to[i] = number(from, i);
}

namespace {

template <class Id>
void take_targets(const char* op, const Id* from, int64_t count, int64_t classes, int64_t ignored,
                  int64_t* to) {
  for (int64_t i = 0; i < count; ++i) {
    const int64_t target = int64_t(from[i]);
    to[i] = target == ignored ? kIgnored : target;
    if (target != ignored && (target < 0 || target >= classes))
      raise<std::out_of_range>(op, ": target ", target, " at position ", i,
                               " is out of range, expected at least 0 and less than ", classes,
                               ", or ignore_index, ", ignored);
  }
}

}  // namespace

LossTargets::LossTargets(const char* op, const TensorView& target, const TensorView* weight,
                         int64_t classes, DType dtype, int64_t ignore_index)
    : classes_(classes),
      dtype_(dtype),
      w_sum_(double(classes)),
      target_(new int64_t[size_t(target.numel())]) {
  const int64_t count = target.numel();
  if (target.dtype == DType::i64)
    take_targets(op, target.as<int64_t>(), count, classes, ignore_index, target_.get());
  else if (target.dtype == DType::i32)
    take_targets(op, target.as<int32_t>(), count, classes, ignore_index, target_.get());
  else if (target.dtype == DType::u8)
    take_targets(op, target.as<uint8_t>(), count, classes, ignore_index, target_.get());
  else
    raise<TypeError>(op, ": target is ", name_of(target.dtype),
                     ", expected int64, int32 or uint8 class numbers");
  if (weight) {
    HONED_CHECK_TYPE(
        is_real(weight->dtype) && (weight->dtype == DType::f64) == (dtype == DType::f64), op,
        ": weight is ", name_of(weight->dtype), " beside an input of ", name_of(dtype),
        ", expected float32, float16 or bfloat16, or float64 for both");
    HONED_CHECK(weight->ndim == 1 && weight->size(0) == classes, op, ": weight has shape ",
                shape_of(*weight), ", expected [", classes, "]");
    w_.reset(new char[size_t(classes * size_of(sum_type(dtype)))]);
    w_sum_ = 0;
    for (int64_t c = 0; c < classes; ++c) {
      const double value = number(*weight, c * weight->stride(0));
      w_sum_ += value;
      if (dtype == DType::f64)
        reinterpret_cast<double*>(w_.get())[c] = value;
      else
        reinterpret_cast<float*>(w_.get())[c] = float(value);
    }
  }
  for (int64_t i = 0; i < count; ++i)
    if (target_[size_t(i)] != kIgnored)
      total_ += weight ? number(*weight, target_[size_t(i)] * weight->stride(0)) : 1;
}

CrossEntropyArgs LossTargets::args(const LossOptions& options, int64_t first, int64_t rows) const {
  CrossEntropyArgs args{};
  args.target = target_.get() + first;
  args.w = w_.get();
  args.w_sum = w_sum_;
  args.rows = rows;
  args.cols = classes_;
  args.smoothing = options.smoothing;
  args.z_loss = options.z_loss;
  args.softcap = options.softcap;
  args.dtype = dtype_;
  return args;
}

void check_loss(const char* op, const LossOptions& options, DType dtype) {
  HONED_CHECK_TYPE(is_real(dtype), op, ": input is ", name_of(dtype),
                   ", expected float64, float32, float16 or bfloat16");
  HONED_CHECK(options.reduction <= Reduction::sum, op, ": reduction is ", int(options.reduction),
              ", expected 0 (none), 1 (mean) or 2 (sum)");
  HONED_CHECK(options.smoothing >= 0 && options.smoothing <= 1, op, ": label_smoothing is ",
              options.smoothing, ", expected a number between 0 and 1");
  HONED_CHECK(options.softcap >= 0 && std::isfinite(options.softcap), op, ": softcap is ",
              options.softcap, ", expected a positive number, or 0 for none");
}

double factor_of(Reduction reduction, double total) {
  return reduction == Reduction::mean ? 1 / total : 1;
}

void reduce_loss(const TensorView& out, const double* losses, int64_t rows, Reduction reduction,
                 double total) {
  if (reduction == Reduction::none) {
    for (int64_t r = 0; r < rows; ++r) put_number(out, r, losses[r]);
    return;
  }
  double sum = 0;
  for (int64_t r = 0; r < rows; ++r) sum += losses[r];
  put_number(out, 0, reduction == Reduction::mean ? sum / total : sum);
}

void run_cross_entropy(const CrossEntropyArgs& args, bool backward) {
  const cpu::KernelTable& kernels = cpu::kernels();
  cpu::run(backward ? kernels.cross_entropy_backward : kernels.cross_entropy, args, args.rows,
           cpu::grain_for(2 * args.cols));
}

void cross_entropy(const TensorView& loss, void* lse, const TensorView* dx, const TensorView& x,
                   const TensorView& target, const TensorView* weight, const LossOptions& options) {
  check_loss("cross_entropy", options, x.dtype);
  LossTargets targets("cross_entropy", target, weight, x.size(1), x.dtype, options.ignore_index);
  const int64_t rows = x.size(0);
  const double factor = factor_of(options.reduction, targets.total());
  Scratch losses(rows * 8), own_lse(lse ? 0 : rows * 16);
  CrossEntropyArgs args = targets.args(options, 0, rows);
  args.x = x.data;
  args.x_stride = x.stride(0);
  args.loss = losses.as<double>();
  args.lse = lse ? lse : own_lse.as<void>();
  args.grad = &factor;
  if (dx) {
    args.dx = dx->data;
    args.dx_stride = dx->stride(0);
  }
  run_cross_entropy(args);
  reduce_loss(loss, args.loss, rows, options.reduction, targets.total());
}

void cross_entropy_backward(const TensorView& dx, const TensorView& grad, const TensorView& x,
                            const TensorView& target, const TensorView* weight, const void* lse,
                            const LossOptions& options) {
  check_loss("cross_entropy_backward", options, x.dtype);
  const int64_t rows = x.size(0);
  HONED_CHECK(grad.numel() == rows, "cross_entropy_backward: grad has shape ", shape_of(grad),
              ", expected a number for each of ", rows, " rows");
  LossTargets targets("cross_entropy_backward", target, weight, x.size(1), x.dtype,
                      options.ignore_index);
  Scratch wide(rows * 8);
  widen(grad, wide.as<double>());
  CrossEntropyArgs args = targets.args(options, 0, rows);
  args.x = x.data;
  args.x_stride = x.stride(0);
  args.lse = const_cast<void*>(lse);
  args.grad = wide.as<double>();
  args.grad_stride = 1;
  args.dx = dx.data;
  args.dx_stride = dx.stride(0);
  run_cross_entropy(args, true);
}

}  // namespace honed
