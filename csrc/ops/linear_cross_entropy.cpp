// linear_cross_entropy: checks, then products and rows of losses chunk by chunk.
#include "ops/linear_cross_entropy.h"

#include <algorithm>
#include <cstring>

#include "core/arena.h"
#include "core/check.h"
#include "cpu/dispatch.h"
#include "ops/matmul.h"

namespace honed {

namespace {

constexpr const char* kOp = "linear_cross_entropy";

TensorView matrix(void* data, int64_t rows, int64_t cols, DType dtype) {
  TensorView view;
  view.data = data;
  view.ndim = 2;
  view.shape[0] = rows;
  view.shape[1] = cols;
  view.strides[0] = cols;
  view.strides[1] = 1;
  view.dtype = dtype;
  return view;
}

TensorView turned(TensorView t) {
  std::swap(t.shape[0], t.shape[1]);
  std::swap(t.strides[0], t.strides[1]);
  return t;
}

// `count` rows or columns from `first` on.
TensorView part(TensorView t, int dim, int64_t first, int64_t count) {
  t.data = t.as<char>() + first * t.strides[dim] * size_of(t.dtype);
  t.shape[dim] = count;
  return t;
}

void add_product(const TensorView& y, const TensorView& a, const TensorView& b, bool add) {
  Epilogue epilogue;
  if (add) epilogue.residual = &y;
  matmul(y, a, b, epilogue);
}

void round_to(const TensorView& to, const float* sums) {
  LinearCrossEntropyArgs args{sums, to.data, to.numel(), to.dtype};
  cpu::run(cpu::kernels().linear_cross_entropy, args, (args.count + kRoundBlock - 1) / kRoundBlock,
           cpu::grain_for(kRoundBlock / 4));
}

// A gradient that chunks add to: where it goes itself, or f32 sums that are rounded at the end.
class Sum {
 public:
  Sum(const TensorView* to, int64_t rows, int64_t cols, bool rounds)
      : to_(to), scratch_(to && rounds ? rows * cols * 4 : 0) {
    if (!to) return;
    view_ = matrix(rounds ? scratch_.as<void>() : to->data, rows, cols,
                   rounds ? DType::f32 : to->dtype);
    rounds_ = rounds;
  }
  explicit operator bool() const { return to_; }
  const TensorView& view() const { return view_; }
  void finish() const {
    if (to_ && rounds_) round_to(*to_, view_.as<float>());
  }

 private:
  const TensorView* to_;
  Scratch scratch_;
  TensorView view_;
  bool rounds_ = false;
};

// Without a bias as the product of turned matrices, whose rows, the weights, are read where they lie.
// (Chunks of 158 rows, 768 inputs, 50257 classes, Zen 4: loss and gradients take 0.94 of the time.)
void make_logits(const TensorView& logits, const TensorView& x, const LinearLoss& a) {
  if (!a.b) return matmul(turned(logits), a.w, turned(x));
  for (int64_t c = 0; c < a.w.size(0); c += kClassBlock) {
    const int64_t some = std::min(kClassBlock, a.w.size(0) - c);
    Epilogue epilogue;
    TensorView bias;
    if (a.b) {
      bias = part(*a.b, 0, c, some);
      epilogue.bias = &bias;
    }
    matmul(part(logits, 1, c, some), x, turned(part(a.w, 0, c, some)), epilogue);
  }
}

void check(const LinearLoss& a) {
  check_loss(kOp, a.options, a.x.dtype);
  for (const TensorView* t : {&a.w, a.b})
    HONED_CHECK_TYPE(!t || t->dtype == a.x.dtype, kOp, ": input is ", name_of(a.x.dtype),
                     " and another operand ", t ? name_of(t->dtype) : "", ", expected one type");
  HONED_CHECK(a.w.ndim == 2 && a.w.size(1) == a.x.size(1), kOp, ": linear_weight has shape ",
              shape_of(a.w), " and input ", shape_of(a.x), ", expected [classes, ", a.x.size(1),
              "]");
  HONED_CHECK(!a.b || (a.b->ndim == 1 && a.b->size(0) == a.w.size(0)), kOp,
              ": linear_bias has shape ", a.b ? shape_of(*a.b) : "", ", expected [", a.w.size(0),
              "]");
  HONED_CHECK(a.chunk >= 0, kOp, ": chunk is ", a.chunk,
              ", expected a number of rows, or 0 to have it chosen");
  HONED_CHECK(!a.grad || a.grad->numel() == a.x.size(0), kOp, ": grad has shape ",
              a.grad ? shape_of(*a.grad) : "", ", expected a number for each row");
}

// Into equal chunks of at most that many rows.
int64_t rows_of_chunk(const LinearLoss& a) {
  const int64_t rows = std::max<int64_t>(1, a.x.size(0));
  const int64_t row = std::max<int64_t>(1, a.w.size(0) * size_of(a.x.dtype));
  const int64_t most = a.chunk ? a.chunk : std::max<int64_t>(64, kChunkBytes / row);
  const int64_t chunks = (rows + most - 1) / most;
  return (rows + chunks - 1) / chunks;
}

}  // namespace

void linear_cross_entropy(const LinearLoss& a) {
  check(a);
  const int64_t rows = a.x.size(0), inputs = a.x.size(1), classes = a.w.size(0);
  const DType dtype = a.x.dtype;
  const bool narrow = size_of(dtype) == 2;
  LossTargets targets(kOp, a.target, a.class_weight, classes, dtype, a.options.ignore_index);
  for (const TensorView* t : {a.dx, a.dw, a.db})
    if (t && (!rows || !inputs || !classes))
      std::memset(t->data, 0, size_t(t->numel() * size_of(dtype)));
  const double factor = factor_of(a.options.reduction, targets.total());
  const int64_t step = rows_of_chunk(a);
  const bool gradients = a.dx || a.dw || a.db;
  Scratch losses(rows * 8), grads(a.grad ? rows * 8 : 0), lse(step * 16), ones(a.db ? step * 8 : 0);
  Scratch logits_memory(step * classes * size_of(dtype));
  Sum dw(a.dw, classes, inputs, narrow && rows > step);
  Sum db(a.db, 1, classes, narrow && rows > step);
  if (a.grad) widen(*a.grad, grads.as<double>());
  TensorView one = matrix(ones.as<void>(), 1, step, dtype);
  if (a.db)
    for (int64_t r = 0; r < step; ++r) put_number(one, r, 1);
  for (int64_t first = 0; first < rows; first += step) {
    const int64_t count = std::min(step, rows - first);
    const TensorView x = part(a.x, 0, first, count);
    const TensorView logits = matrix(logits_memory.as<void>(), count, classes, dtype);
    make_logits(logits, x, a);
    CrossEntropyArgs args = targets.args(a.options, first, count);
    args.x = logits.data;
    args.x_stride = args.dx_stride = classes;
    args.loss = losses.as<double>() + first;
    args.lse = lse.as<void>();
    args.grad = a.grad ? grads.as<double>() + first : &factor;
    args.grad_stride = a.grad ? 1 : 0;
    if (gradients) args.dx = logits.data;
    run_cross_entropy(args);
    if (dw) add_product(dw.view(), turned(logits), x, first > 0);
    if (db) add_product(db.view(), part(one, 1, 0, count), logits, first > 0);
    if (a.dx) {
      const TensorView to =
          matrix(a.dx->as<char>() + first * inputs * size_of(dtype), count, inputs, dtype);
      Sum dx(&to, count, inputs, narrow && classes > kClassBlock);
      for (int64_t c = 0; c < classes; c += kClassBlock) {
        const int64_t some = std::min(kClassBlock, classes - c);
        add_product(dx.view(), part(logits, 1, c, some), part(a.w, 0, c, some), c > 0);
      }
      dx.finish();
    }
  }
  dw.finish();
  db.finish();
  reduce_loss(a.loss, losses.as<double>(), rows, a.options.reduction, targets.total());
}

}  // namespace honed
