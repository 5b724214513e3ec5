// softmax and log_softmax: checks, then the CPU table.
#include "ops/softmax.h"

#include <algorithm>

#include "core/arena.h"
#include "core/check.h"
#include "cpu/dispatch.h"

namespace honed {

namespace {

struct Split {
  int64_t outer, size, inner;
};
Split split(const TensorView& t, int dim) {
  Split s{1, t.size(dim), 1};
  for (int i = 0; i < t.ndim; ++i) (i < dim ? s.outer : s.inner) *= i == dim ? 1 : t.shape[i];
  return s;
}

constexpr int64_t kFewRows = 8, kWide = 2 * kSoftmaxPiece;

// Pieces of few wide rows, so that every thread has some.
void run_pieces(SoftmaxArgs& args) {
  int64_t pieces = (args.cols + kSoftmaxPiece - 1) / kSoftmaxPiece;
  Scratch parts(args.rows * pieces * 16);
  args.parts = parts.as<void>();
  cpu::run(cpu::kernels().softmax_parts, args, args.rows * pieces, 1);
  cpu::run(cpu::kernels().softmax_finish, args, args.rows * pieces, 1);
}

// Rows, with a row's exponentials in a buffer of the thread where y would round them.
void run_rows(SoftmaxArgs& args) {
  auto kernel = args.log ? cpu::kernels().log_softmax : cpu::kernels().softmax;
  int64_t grain = cpu::grain_for(3 * args.cols);
  if (args.log || size_of(args.y_dtype) >= 4) return cpu::run(kernel, args, args.rows, grain);
  int64_t bytes = (args.cols * 4 + 63) / 64 * 64;
  int threads = int(std::min<int64_t>(num_threads(), (args.rows + grain - 1) / grain));
  Scratch buffers(threads * bytes);
  run_team(threads, [&](const Team& team) {
    SoftmaxArgs own = args;
    own.buffer = buffers.as<char>() + team.rank * bytes;
    kernel(own, team.begin(own.rows), team.end(own.rows));
  });
}

}  // namespace

void run_softmax(const char* op, const TensorView& y, const TensorView& x, int dim, bool log) {
  HONED_CHECK_TYPE(is_real(x.dtype), op, ": input is ", name_of(x.dtype),
                   ", expected float64, float32, float16 or bfloat16");
  HONED_CHECK_TYPE(y.dtype == x.dtype || (y.dtype == DType::f32 && is_float(x.dtype)), op,
                   ": the result is ", name_of(y.dtype), ", expected ", name_of(x.dtype),
                   is_float(x.dtype) ? " or float32" : "");
  if (y.numel() == 0) return;
  Split s = split(x, dim);
  SoftmaxArgs args{x.data, y.data, s.outer, s.size, 0, 0, x.dtype, y.dtype, log, s.inner};
  if (dim + 1 < x.ndim) {
    int64_t blocks = (s.inner + kSoftmaxInner - 1) / kSoftmaxInner;
    cpu::run(cpu::kernels().softmax_columns, args, s.outer * blocks,
             cpu::grain_for(3 * s.size * kSoftmaxInner));
    return;
  }
  args.x_stride = x.stride(0);
  args.y_stride = y.stride(0);
  if (args.rows < kFewRows && args.cols >= kWide)
    run_pieces(args);
  else
    run_rows(args);
}

void run_softmax_backward(const char* op, const TensorView& dx, const TensorView& g,
                          const TensorView& y, int dim, bool log) {
  HONED_CHECK_TYPE(is_real(y.dtype) && g.dtype == y.dtype, op, ": grad is ", name_of(g.dtype),
                   " and output ", name_of(y.dtype), ", expected one floating type");
  HONED_CHECK_TYPE(dx.dtype == y.dtype || (y.dtype == DType::f32 && is_float(dx.dtype)), op,
                   ": output is ", name_of(y.dtype), " of an input of ", name_of(dx.dtype),
                   ", expected equal types, or float32 of a narrower one");
  if (dx.numel() == 0) return;
  Split s = split(y, dim);
  SoftmaxBackwardArgs args{g.data, y.data, dx.data,  s.outer, s.size, 0,
                           0,      0,      dx.dtype, y.dtype, log,    s.inner};
  if (dim + 1 < y.ndim) {
    int64_t blocks = (s.inner + kSoftmaxInner - 1) / kSoftmaxInner;
    cpu::run(cpu::kernels().softmax_columns_backward, args, s.outer * blocks,
             cpu::grain_for((log ? 2 : 1) * s.size * kSoftmaxInner));
    return;
  }
  args.g_stride = g.stride(0);
  args.y_stride = y.stride(0);
  args.dx_stride = dx.stride(0);
  cpu::run(cpu::kernels().softmax_backward, args, args.rows,
           cpu::grain_for((log ? 2 : 1) * args.cols));
}

void softmax(const TensorView& y, const TensorView& x, int dim) {
  run_softmax("softmax", y, x, dim, false);
}
void softmax_backward(const TensorView& dx, const TensorView& g, const TensorView& y, int dim) {
  run_softmax_backward("softmax_backward", dx, g, y, dim, false);
}

}  // namespace honed
