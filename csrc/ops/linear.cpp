// linear: preparing rows, checks, then the CPU table.
#include "ops/linear.h"

#include <algorithm>

#include "core/arena.h"
#include "core/check.h"
#include "cpu/dispatch.h"
#include "ops/_product_rate.h"
#include "ops/_sizes.h"
#include "ops/matmul.h"

namespace honed {

namespace {

int64_t groups_of(const PackedView& w) { return round_up(w.k_padded, w.group) / w.group; }

// An odd number of cache lines: a multiple of 4 KB would put the rows of a tile on the same few
// sets of the first cache.
int64_t q_stride_of(const PackedView& w) { return (round_up(w.k_padded, 64) / 64 | 1) * 64; }

}  // namespace

const char* name_of(WeightKind kind) {
  switch (kind) {
    case WeightKind::f64:
      return "f64";
    case WeightKind::f32:
      return "f32";
    case WeightKind::f16:
      return "f16";
    case WeightKind::bf16:
      return "bf16";
    case WeightKind::int8:
      return "int8";
    case WeightKind::int4:
      return "int4";
    case WeightKind::grid4:
      return "grid4";
    case WeightKind::grid8:
      return "grid8";
  }
  return "unknown";
}

int64_t linear_items(const PackedView& w, int64_t m) {
  return (w.gated ? w.panels / 2 : w.panels) * ((m + kBlockRows - 1) / kBlockRows);
}

int64_t linear_rows_bytes(const PackedView& w, int64_t m) {
  return rounds_rows(w) ? m * (q_stride_of(w) + groups_of(w) * 8) : 0;
}

LinearRowsArgs linear_rows_args(const PackedView& w, int64_t m, void* block, LinearRows* rows) {
  LinearRowsArgs args{};
  args.k = w.k;
  args.k_padded = w.k_padded;
  args.group = w.group;
  args.sum_times = w.kind == WeightKind::int8 ? -128 : 1;
  args.q = static_cast<int8_t*>(block);
  args.q_stride = q_stride_of(w);
  args.scale = reinterpret_cast<float*>(args.q + m * args.q_stride);
  args.sum = reinterpret_cast<int32_t*>(args.scale + m * groups_of(w));
  *rows = {nullptr, 0, args.q, args.q_stride, args.scale, args.sum};
  if (w.kind == WeightKind::int8 && w.group >= kLongGroup) rows->way = way_of_int8(m);
  return args;
}

void linear(const TensorView& y, const TensorView& x, const PackedView& w,
            const Epilogue& epilogue) {
  const TensorView* residual = epilogue.residual;
  HONED_CHECK(!epilogue.bias, "linear: bias beside a packed weight, expected it in the weight");
  HONED_CHECK_TYPE(is_float(x.dtype), "linear: input is ", name_of(x.dtype),
                   ", expected float32, float16 or bfloat16");
  HONED_CHECK(x.size(1) == w.k, "linear: input has ", x.size(1), " columns, expected ", w.k);
  HONED_CHECK(y.size(0) == x.size(0) && y.size(1) == w.n, "linear: output has shape ", shape_of(y),
              ", expected [", x.size(0), ", ", w.n, "]");
  HONED_CHECK(!residual || (same_shape(*residual, y) && residual->dtype == y.dtype),
              "linear: residual has shape ", residual ? shape_of(*residual) : "", ", expected ",
              shape_of(y), " of the output's type");
  HONED_CHECK(!epilogue.left || !w.gated, "linear: plus beside a gated weight, expected none");
  const int64_t m = x.size(0);
  check_plus("linear", epilogue, m, w.n, x.dtype);
  // Few outputs leave most of a panel empty: dot products with the rows of x do not.
  constexpr int64_t kFewOutputs = 16;
  if (w.kind == WeightKind::f32 && x.dtype == DType::f32 && w.n <= kFewOutputs && m > kPanel) {
    TensorView columns{const_cast<uint8_t*>(w.data), {w.k, w.n}, {kPanel, 1}, 2};
    TensorView bias{const_cast<float*>(w.bias), {w.n}, {1}, 1};
    Epilogue all = epilogue;
    if (w.bias) all.bias = &bias;
    return matmul(y, x, columns, all);
  }
  Destination to{y.data, y.stride(0), 1, y.dtype};
  to.activation = epilogue.activation;
  to.scale = epilogue.scale;
  to.bias = w.bias;
  if (residual) {
    to.residual = residual->data;
    to.residual_row = residual->stride(0);
    to.residual_col = 1;
  }
  Strided rows{x.data, x.dtype, x.stride(0), 1};
  if (!rounds_rows(w)) return multiply(rows, m, w, to, epilogue);
  LinearArgs args{w, {}, m, to};
  SecondProduct plus(epilogue, m, w.n, DType::f32);
  plus.attach(args, 0);
  Scratch block(linear_rows_bytes(w, m));
  LinearRowsArgs round = linear_rows_args(w, m, block.as<void>(), &args.rows);
  round.x = x.data;
  round.x_stride = x.stride(0);
  round.dtype = x.dtype;
  cpu::run(cpu::kernels().linear_rows, round, m, cpu::grain_for(w.k));
  int64_t operations = std::min<int64_t>(m, kBlockRows) * w.k * kPanel * (w.gated ? 2 : 1) / 8;
  cpu::run(cpu::kernels().linear, args, linear_items(w, m), cpu::grain_for(operations));
}

}  // namespace honed
