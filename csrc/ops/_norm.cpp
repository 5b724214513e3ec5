// Checks, arguments and column sums of the normalisations.
#include "ops/_norm.h"

#include <algorithm>

#include "core/check.h"
#include "cpu/dispatch.h"
#include "ops/_wide_weight.h"

namespace honed {

namespace {

void check_vector(const char* op, const char* what, const TensorView& v, const TensorView& x) {
  HONED_CHECK_TYPE(is_real(v.dtype) && (v.dtype == DType::f64) == (x.dtype == DType::f64), op, ": ",
                   what, " is ", name_of(v.dtype), " beside an input of ", name_of(x.dtype),
                   ", expected float32, float16 or bfloat16, or float64 for both");
  HONED_CHECK(v.numel() == x.size(1) && v.contiguous(), op, ": ", what, " has shape ", shape_of(v),
              ", expected a contiguous [", x.size(1), "]");
}

// Enough blocks for the threads, few sums of blocks to add; by the shape alone.
int64_t rows_of_block(int64_t rows) {
  constexpr int64_t kLeast = 16, kBlocks = 64;
  return std::max(kLeast, (rows + kBlocks - 1) / kBlocks);
}

}  // namespace

void check_norm(const char* op, const TensorView& x, const TensorView* w, const TensorView* b,
                const TensorView* g) {
  HONED_CHECK_TYPE(is_real(x.dtype), op, ": input is ", name_of(x.dtype),
                   ", expected float64, float32, float16 or bfloat16");
  if (w) check_vector(op, "weight", *w, x);
  if (b) check_vector(op, "bias", *b, x);
  HONED_CHECK_TYPE(!w || !b || w->dtype == b->dtype, op, ": bias is ", name_of(b->dtype),
                   ", expected weight's type ", name_of(w->dtype));
  if (g) {
    HONED_CHECK_TYPE(g->dtype == x.dtype, op, ": grad is ", name_of(g->dtype),
                     ", expected input's type, ", name_of(x.dtype));
    HONED_CHECK(same_shape(*g, x), op, ": grad has shape ", shape_of(*g), ", expected input's, ",
                shape_of(x));
  }
}

void add_columns(const void* from, int64_t rows, const TensorView& to) {
  int64_t cols = to.numel();
  ColumnSumsArgs args{from, to.data, rows, cols, to.dtype};
  cpu::run(cpu::kernels().column_sums, args, (cols + kSumColumns - 1) / kSumColumns,
           cpu::grain_for(rows * kSumColumns / 8));
}

void WideWeight::widen(const TensorView& w) {
  WidenArgs args{w.data, wide_.emplace(w.numel() * 4).as<float>(), w.numel(), w.dtype};
  data_ = args.to;
  int64_t items = (args.count + kWidenItem - 1) / kWidenItem;
  if (items <= 1)
    cpu::kernels().widen(args, 0, items);
  else
    cpu::run(cpu::kernels().widen, args, items, cpu::grain_for(kWidenItem / 8));
}

void norm(void (*kernel)(const NormArgs&, int64_t, int64_t), const NormTensors& t, double eps,
          int64_t grain) {
  WideWeight w(t.w), b(t.b);
  NormArgs args{t.x.data,    w.data(),      b.data(),      t.y.data, t.x.size(0),
                t.x.size(1), t.x.stride(0), t.y.stride(0), eps,      t.x.dtype};
  if (t.add) {
    args.add = t.add->data;
    args.sum = t.sum->data;
    args.add_stride = t.add->stride(0);
  }
  cpu::run(kernel, args, args.rows, grain);
}

void norm_backward(void (*kernel)(const NormBackwardArgs&, int64_t, int64_t),
                   const NormGradients& t, double eps) {
  WideWeight w(t.w);
  int64_t block = rows_of_block(t.x.size(0)), blocks = (t.x.size(0) + block - 1) / block;
  int64_t bytes = blocks * t.x.size(1) * (t.x.dtype == DType::f64 ? 8 : 4);
  Scratch sums(((t.dw != nullptr) + (t.db != nullptr)) * bytes);
  char* w_sums = sums.as<char>();
  char* b_sums = w_sums + (t.dw ? bytes : 0);
  NormBackwardArgs args{t.g.data,
                        t.x.data,
                        w.data(),
                        t.g_sum ? t.g_sum->data : nullptr,
                        t.dx ? t.dx->data : nullptr,
                        t.dw ? w_sums : nullptr,
                        t.db ? b_sums : nullptr,
                        t.x.size(0),
                        t.x.size(1),
                        block,
                        t.g.stride(0),
                        t.x.stride(0),
                        t.g_sum ? t.g_sum->stride(0) : 0,
                        t.dx ? t.dx->stride(0) : 0,
                        eps,
                        t.x.dtype};
  cpu::run(kernel, args, blocks, cpu::grain_for(args.cols / 2 * block));
  if (t.dw) add_columns(w_sums, blocks, *t.dw);
  if (t.db) add_columns(b_sums, blocks, *t.db);
}

}  // namespace honed
